// scheduled PROCS: gives the scheduler work, command by command, and says what the runtime and itself have counted.
//
// Commands are lines on standard input: "yield G N" (G goroutines that yield N times each), "lock G N" (G goroutines that
// take turns at a lock for N times a microsecond each), "follow G N" (as yield, and each notes when it runs on another P
// than before), "spin G" (G goroutines that run until the next command), "sleep G"
// (G more that sleep for good), "spread G N" (N times G that are started at once by a goroutine that keeps its P until
// another has run all of them), "collect", "wait" (nothing). After each comes a line of JSON. Then it is within one system call of
// which the scheduler knows nothing, until it gets a byte: nothing that was counted changes.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

type truth struct {
	Buckets      []float64
	Counts       []uint64
	MutexWait    float64
	Created      uint64 // since Go 1.26
	Procs        int
	Goroutines   int
	Spun, Yields int64
	Moved        int64 // goroutines that follow ran on another P than before
	Elapsed      int64
}

var (
	samples = []metrics.Sample{
		{Name: "/sched/latencies:seconds"}, {Name: "/sync/mutex/wait/total:seconds"}, {Name: "/sched/goroutines-created:goroutines"},
	}
	stop   atomic.Bool
	spun   atomic.Int64
	yields int64
	moved  atomic.Int64
	lock   sync.Mutex
)

//go:linkname procPin runtime.procPin
func procPin() int

//go:linkname procUnpin runtime.procUnpin
func procUnpin()

func each(count int, work func()) *sync.WaitGroup {
	var done sync.WaitGroup
	done.Add(count)
	for i := 0; i < count; i++ {
		go func() {
			work()
			done.Done()
		}()
	}
	return &done
}

func busy(length time.Duration) {
	for begin := time.Now(); time.Since(begin) < length; {
	}
}

func report(elapsed time.Duration) {
	metrics.Read(samples)
	found := truth{Procs: runtime.GOMAXPROCS(0), Goroutines: runtime.NumGoroutine(), Spun: spun.Load(), Yields: yields, Moved: moved.Load()}
	found.Elapsed = int64(elapsed)
	histogram := samples[0].Value.Float64Histogram()
	found.Counts = histogram.Counts
	for _, edge := range histogram.Buckets {
		found.Buckets = append(found.Buckets, math.Max(-1, math.Min(1e9, edge))) // JSON has no infinity
	}
	if samples[1].Value.Kind() == metrics.KindFloat64 {
		found.MutexWait = samples[1].Value.Float64()
	}
	if samples[2].Value.Kind() == metrics.KindUint64 {
		found.Created = samples[2].Value.Uint64()
	}
	text, err := json.Marshal(found)
	if err != nil {
		panic(err)
	}
	text = append(text, '\n')
	for len(text) > 0 {
		n, _, errno := syscall.RawSyscall(syscall.SYS_WRITE, 1, uintptr(unsafe.Pointer(&text[0])), uintptr(len(text)))
		if errno != 0 {
			panic(errno)
		}
		text = text[n:]
	}
}

func main() {
	debug.SetGCPercent(-1)
	procs, _ := strconv.Atoi(os.Args[1])
	runtime.GOMAXPROCS(procs)
	lines := bufio.NewScanner(os.Stdin)
	var spinners *sync.WaitGroup
	for lines.Scan() {
		var command string
		var count, times int
		fmt.Sscan(lines.Text(), &command, &count, &times)
		stop.Store(true)
		if spinners != nil {
			spinners.Wait()
			spinners = nil
		}
		begin := time.Now()
		switch command {
		case "yield":
			each(count, func() {
				for i := 0; i < times; i++ {
					runtime.Gosched()
				}
			}).Wait()
			yields += int64(count * times)
		case "follow":
			each(count, func() {
				for i, last := 0, 0; i < times; i++ {
					p := procPin()
					procUnpin()
					if i > 0 && p != last {
						moved.Add(1)
					}
					last = p
					runtime.Gosched()
				}
			}).Wait()
		case "lock":
			each(count, func() {
				for i := 0; i < times; i++ {
					lock.Lock()
					busy(time.Microsecond)
					lock.Unlock()
				}
			}).Wait()
		case "spin":
			stop.Store(false)
			spinners = each(count, func() {
				for n := int64(0); !stop.Load(); n++ {
					spun.Add(1)
				}
			})
		case "spread":
			for i := 0; i < times; i++ {
				var ran atomic.Int64
				for j := 0; j < count; j++ {
					go ran.Add(1)
				}
				for ran.Load() < int64(count) {
				}
			}
		case "collect":
			runtime.GC()
		case "sleep":
			var begun sync.WaitGroup
			begun.Add(count)
			each(count, func() {
				begun.Done()
				select {}
			})
			begun.Wait()
		}
		elapsed := time.Since(begin)
		if spinners == nil {
			time.Sleep(50 * time.Millisecond) // until the others wait, and idle threads are done with looking for work
		}
		report(elapsed)
		var one [1]byte
		syscall.RawSyscall(syscall.SYS_READ, 0, uintptr(unsafe.Pointer(&one[0])), 1)
	}
}
