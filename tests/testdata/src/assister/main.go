// assister has many goroutines allocate while a large heap is marked, and prints how long their own allocations took them.
//
// It waits for a line on standard input before the load, and for the end of standard input before it exits. The truth is
// one line of JSON on standard output: allocations of a millisecond and more, by the clock that it read around it.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	_ "unsafe" // for go:linkname
)

//go:linkname nanotime runtime.nanotime
func nanotime() int64

const long = int64(time.Millisecond)

var (
	live    = flag.Int("live", 48, "MiB kept alive")
	percent = flag.Int("percent", 20, "GOGC")
	workers = flag.Int("workers", 16, "goroutines that allocate")
	cycles  = flag.Int("cycles", 12, "collections to make")
	reuse   = flag.Bool("reuse", false, "use what was allocated again, so that the collector has to be asked")
	sink    [64]atomic.Value
)

type node struct {
	next *node
	pad  [256 - 8]byte
}

// allocation is one that took long; times are CLOCK_MONOTONIC's.
type allocation struct {
	Goid, Begin, End int64
}

// spent is how long one goroutine's allocations took it, short ones too.
type spent struct {
	Goid, Ns int64
}

type truth struct {
	Long          []allocation
	Spent         []spent
	AssistSeconds float64 // -1: this release does not count it
	LimiterCycle  uint64  // in which the limiter of the collector's CPU time came on last
}

// goid is the number of the goroutine that calls it.
func goid() int64 {
	words := strings.Fields(string(debug.Stack()))
	number, err := strconv.ParseInt(words[1], 10, 64)
	if err != nil {
		panic(err)
	}
	return number
}

func numGC() int64 {
	var stats debug.GCStats
	debug.ReadGCStats(&stats)
	return stats.NumGC
}

func assistSeconds() float64 {
	sample := []metrics.Sample{{Name: "/cpu/classes/gc/mark/assist:cpu-seconds"}}
	metrics.Read(sample)
	if sample[0].Value.Kind() != metrics.KindFloat64 {
		return -1
	}
	return sample[0].Value.Float64()
}

func wipe(room []*node) {
	for i := range room {
		room[i] = nil
	}
}

func main() {
	flag.Parse()
	var ballast *node
	for i := 0; i < *live<<12; i++ {
		ballast = &node{next: ballast}
	}
	debug.SetGCPercent(*percent)
	input := bufio.NewReader(os.Stdin)
	input.ReadString('\n')
	runtime.GC()
	before, first := assistSeconds(), numGC()
	var done atomic.Bool
	var group sync.WaitGroup
	found, all := make([][]allocation, *workers), make([]spent, *workers)
	for w := 0; w < *workers; w++ {
		group.Add(1)
		go func(slot int) {
			defer group.Done()
			begin := nanotime()
			own := make([]allocation, 1, 1<<14)
			mine := goid()
			own[0] = allocation{mine, begin, nanotime()} // allocations, too
			total := own[0].End - begin
			room := make([]*node, 512)
			for !done.Load() {
				if *reuse {
					wipe(room)
					runtime.Gosched()
					continue
				}
				begin = nanotime()
				sink[slot].Store(make([]*node, 512)) // the slice, and what the interface points to
				end := nanotime()
				total += end - begin
				if end-begin >= long && len(own) < cap(own) {
					own = append(own, allocation{mine, begin, end})
				}
			}
			found[slot], all[slot] = own, spent{mine, total}
		}(w)
	}
	for numGC()-first < int64(*cycles) {
		time.Sleep(time.Millisecond)
		if *reuse {
			runtime.GC()
		}
	}
	done.Store(true)
	group.Wait()
	runtime.GC() // whose end adds up what assists took
	limiter := []metrics.Sample{{Name: "/gc/limiter/last-enabled:gc-cycle"}}
	metrics.Read(limiter)
	result := truth{Spent: all, AssistSeconds: assistSeconds() - before, LimiterCycle: limiter[0].Value.Uint64()}
	if before < 0 {
		result.AssistSeconds = -1
	}
	for _, each := range found {
		result.Long = append(result.Long, each...)
	}
	json.NewEncoder(os.Stdout).Encode(result)
	io.Copy(io.Discard, input)
	runtime.KeepAlive(ballast)
}
