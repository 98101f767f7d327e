// scheduled PROCS: gives the scheduler work, command by command, and says what the runtime and itself have counted.
//
// Commands are lines on standard input: "yield G N" (G goroutines that yield N times each), "lock G N" (G goroutines that
// take turns at a lock for N times a microsecond each), "follow G N" (as yield, and each notes when it runs on another P
// than before), "spin G" (G goroutines that run until the next command), "sleep G"
// (G more that sleep for good), "spread G N" (N times G that are started at once by a goroutine that keeps its P until
// another has run all of them), "hog G N" (G goroutines that keep a P for N milliseconds each), "call G N" (N times G that
// are started by one that is then in a system call of 30 milliseconds), "own N" (a goroutine that is started N times, with a
// thread of its own), "collect", "wait" (nothing). After each comes a line of JSON. Then it is within one system call of
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
	Classes      []float64  // /cpu/classes: gc, scavenge, idle, user, total; since Go 1.20
	Ran          [][3]int64 // of goroutines that hog: goid, from when to when in CLOCK_MONOTONIC
}

var (
	samples = []metrics.Sample{
		{Name: "/sched/latencies:seconds"}, {Name: "/sync/mutex/wait/total:seconds"}, {Name: "/sched/goroutines-created:goroutines"},
	}
	classes = []metrics.Sample{
		{Name: "/cpu/classes/gc/total:cpu-seconds"}, {Name: "/cpu/classes/scavenge/total:cpu-seconds"},
		{Name: "/cpu/classes/idle:cpu-seconds"}, {Name: "/cpu/classes/user:cpu-seconds"}, {Name: "/cpu/classes/total:cpu-seconds"},
	}
	stop   atomic.Bool
	spun   atomic.Int64
	yields int64
	moved  atomic.Int64
	lock   sync.Mutex
	ran    [][3]int64
)

//go:linkname nanotime runtime.nanotime
func nanotime() int64

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

// hog runs for so long, whoever waits, and notes when it ran: as long as it did not notice that it was kept from it.
func hog(length time.Duration) {
	var text [64]byte
	var goid int64
	fmt.Sscanf(string(text[:runtime.Stack(text[:], false)]), "goroutine %d ", &goid)
	begin := nanotime()
	var mine [][3]int64
	for first, last := begin, begin; ; {
		now := nanotime()
		over := now >= begin+int64(length)
		if over || now > last+20_000 {
			mine = append(mine, [3]int64{goid, first, last})
			first = now
		}
		last = now
		if over {
			break
		}
	}
	lock.Lock()
	ran = append(ran, mine...)
	lock.Unlock()
}

// caller starts goroutines, and keeps its P in a system call, until that is taken from it: by the runtime's watchdog, which
// looks the more rarely the longer there was nothing to take.
func caller(count, times int) {
	for i := 0; i < times; i++ {
		busy(25 * time.Millisecond)
		started := each(count, func() {})
		pause := syscall.NsecToTimespec(30e6)
		syscall.Nanosleep(&pause, nil)
		started.Wait()
	}
}

// owner has a thread of its own, which has to be woken whenever it is to run.
func owner(times int) {
	runtime.LockOSThread()
	for i := 0; i < times; i++ {
		time.Sleep(2 * time.Millisecond)
	}
	runtime.UnlockOSThread()
}

func report(elapsed time.Duration) {
	metrics.Read(samples)
	found := truth{Procs: runtime.GOMAXPROCS(0), Goroutines: runtime.NumGoroutine(), Spun: spun.Load(), Yields: yields, Moved: moved.Load(), Ran: ran}
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
	metrics.Read(classes)
	for _, each := range classes {
		if each.Value.Kind() == metrics.KindFloat64 {
			found.Classes = append(found.Classes, each.Value.Float64())
		}
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
		case "hog":
			each(count, func() { hog(time.Duration(times) * time.Millisecond) }).Wait()
		case "call":
			each(1, func() { caller(count, times) }).Wait()
		case "own":
			each(1, func() { owner(count) }).Wait()
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
