// metered works, command by command, and says what runtime/metrics has then.
//
// Commands are lines on standard input: "allocate N BYTES" (N objects), "sleep G" (G more goroutines that sleep for good),
// "yield G N" (G goroutines that yield N times each), "collect", "gogc PERCENT", "limit BYTES", "wait" (nothing). After each
// comes a line of JSON. Then it is within one system call of which the scheduler knows nothing, until it gets a byte: nothing
// that is counted changes.
package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

var (
	samples = []metrics.Sample{
		{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"},
		{Name: "/memory/classes/heap/stacks:bytes"}, {Name: "/gc/heap/allocs:bytes"}, {Name: "/gc/heap/allocs:objects"},
		{Name: "/sched/goroutines:goroutines"}, {Name: "/sched/latencies:seconds"},
		{Name: "/gc/gogc:percent"}, {Name: "/gc/gomemlimit:bytes"}, {Name: "/gc/heap/live:bytes"}, // since Go 1.21
	}
	room = make([]byte, 0, 1<<16)
	kept [][]byte
)

// report allocates nothing once it has read what there is.
func report() {
	metrics.Read(samples) // which makes room for the histogram
	metrics.Read(samples)
	text := append(room[:0], '{')
	for i, sample := range samples {
		if i > 0 {
			text = append(text, ',')
		}
		text = append(strconv.AppendQuote(text, sample.Name), ':')
		if sample.Value.Kind() == metrics.KindBad {
			text = append(text, "null"...)
			continue
		}
		if sample.Value.Kind() == metrics.KindUint64 {
			text = strconv.AppendUint(text, sample.Value.Uint64(), 10)
			continue
		}
		for j, count := range sample.Value.Float64Histogram().Counts {
			text = append(text, "[,"[min(j)])
			text = strconv.AppendUint(text, count, 10)
		}
		text = append(text, ']')
	}
	text = append(text, '}', '\n')
	for len(text) > 0 {
		n, _, errno := syscall.RawSyscall(syscall.SYS_WRITE, 1, uintptr(unsafe.Pointer(&text[0])), uintptr(len(text)))
		if errno != 0 {
			panic(errno)
		}
		text = text[n:]
	}
}

// min is 0 for the first of a list, else 1.
func min(at int) int {
	if at > 0 {
		return 1
	}
	return 0
}

func main() {
	debug.SetGCPercent(-1)
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var command string
		var count, size int
		fmt.Sscan(lines.Text(), &command, &count, &size)
		var done sync.WaitGroup
		switch command {
		case "allocate":
			for i := 0; i < count; i++ {
				kept = append(kept, make([]byte, size))
			}
		case "collect":
			runtime.GC()
		case "gogc":
			debug.SetGCPercent(count)
		case "limit":
			debug.SetMemoryLimit(int64(count))
		case "sleep", "yield":
			done.Add(count)
			for i := 0; i < count; i++ {
				go func() {
					for j := 0; j < size; j++ {
						runtime.Gosched()
					}
					done.Done()
					if command == "sleep" {
						select {}
					}
				}()
			}
			done.Wait()
		}
		time.Sleep(50 * time.Millisecond) // until the others wait
		report()
		var one [1]byte
		syscall.RawSyscall(syscall.SYS_READ, 0, uintptr(unsafe.Pointer(&one[0])), 1)
	}
}
