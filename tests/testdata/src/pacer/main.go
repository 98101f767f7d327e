// pacer allocates for a time with GOGC, a memory limit and a live heap of one's choice, and prints what the runtime itself
// says of its pacing.
//
// It waits for a line on standard input before the load, and for the end of standard input before it exits. The truth is
// one line of JSON on standard output, read when everything has been collected and swept.
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
	"sync"
	"sync/atomic"
	"time"
)

var (
	percent = flag.Int("percent", 100, "GOGC")
	limit   = flag.Int64("limit", 0, "the memory limit in MiB, 0: none")
	live    = flag.Int("live", 0, "MiB kept alive")
	size    = flag.Int("size", 1024, "bytes of an allocation")
	cycles  = flag.Int("cycles", 50, "collections to make")
	sink    [8]atomic.Value
	names   = []string{
		"/gc/gogc:percent", "/gc/gomemlimit:bytes", "/gc/heap/goal:bytes", "/gc/limiter/last-enabled:gc-cycle",
		"/cpu/classes/scavenge/assist:cpu-seconds",
	}
)

type node struct {
	next *node
	pad  [1024 - 8]byte
}

type truth struct {
	Percent    int
	Limit      int64
	NumGC      int64
	TotalAlloc uint64         // by the load
	Mapped     [2]uint64      // Sys - HeapReleased before the last collection and after it
	Metrics    map[string]any // those that this release has
}

func numGC() int64 {
	var stats debug.GCStats
	debug.ReadGCStats(&stats)
	return stats.NumGC
}

func main() {
	flag.Parse()
	// Objects with pointers: marking them takes time, and assists.
	var ballast *node
	for i := 0; i < *live<<10; i++ {
		ballast = &node{next: ballast}
	}
	debug.SetGCPercent(*percent)
	if *limit > 0 {
		debug.SetMemoryLimit(*limit << 20)
	}
	input := bufio.NewReader(os.Stdin)
	input.ReadString('\n')
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	first := numGC()
	var done atomic.Bool
	var group sync.WaitGroup
	for w := 0; w < 2; w++ {
		group.Add(1)
		go func(slot int) {
			defer group.Done()
			for !done.Load() {
				sink[slot].Store(make([]byte, *size))
			}
		}(w)
	}
	for numGC()-first < int64(*cycles) {
		time.Sleep(time.Millisecond)
	}
	done.Store(true)
	group.Wait()
	runtime.ReadMemStats(&after)
	// Read once before: from here to the last reading nothing is allocated, which might begin another cycle.
	samples := make([]metrics.Sample, len(names))
	for i := range names {
		samples[i].Name = names[i]
	}
	metrics.Read(samples)
	result := truth{TotalAlloc: after.TotalAlloc - before.TotalAlloc}
	result.Mapped[0] = after.Sys - after.HeapReleased
	runtime.GC() // and its sweep
	metrics.Read(samples)
	runtime.ReadMemStats(&after)
	result.Metrics = map[string]any{}
	for _, sample := range samples {
		switch sample.Value.Kind() {
		case metrics.KindUint64:
			result.Metrics[sample.Name] = sample.Value.Uint64()
		case metrics.KindFloat64:
			result.Metrics[sample.Name] = sample.Value.Float64()
		}
	}
	result.NumGC = int64(after.NumGC)
	result.Mapped[1] = after.Sys - after.HeapReleased
	result.Limit = debug.SetMemoryLimit(-1)
	result.Percent = debug.SetGCPercent(*percent)
	json.NewEncoder(os.Stdout).Encode(result)
	io.Copy(io.Discard, input)
	runtime.KeepAlive(ballast)
}
