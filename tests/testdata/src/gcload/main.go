// gcload allocates until it has collected often enough, then prints what the runtime itself counted.
//
// It waits for a line on standard input before the load, and for the end of standard input before it exits, so that
// whoever watches sees all of it. The truth is one line of JSON on standard output. Reading MemStats stops the world
// once more; that happens last, after the histograms were read (which stops nothing).
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
	"runtime/pprof"
	"sync"
	"sync/atomic"
	"time"
)

var (
	cycles     = flag.Int("cycles", 600, "collections to make")
	seconds    = flag.Float64("seconds", 0, "allocate this long instead of counting collections")
	workers    = flag.Int("workers", 2, "goroutines that allocate")
	parked     = flag.Int("parked", 0, "goroutines that only wait")
	live       = flag.Int("live", 4, "MiB kept alive")
	forced     = flag.Bool("forced", false, "call runtime.GC in a loop instead of allocating")
	every      = flag.Duration("every", 0, "how often to call runtime.GC, with -forced")
	idle       = flag.Bool("idle", false, "never collect: turn the collector off and sleep")
	cpuProfile = flag.String("cpuprofile", "", "write a CPU profile of the load")
	percent    = flag.Int("percent", 100, "GOGC")
	sink       [64]atomic.Value
	histograms = []string{
		"/gc/pauses:seconds",
		"/sched/pauses/stopping/gc:seconds", "/sched/pauses/total/gc:seconds",
		"/sched/pauses/stopping/other:seconds", "/sched/pauses/total/other:seconds",
	}
)

type histogram struct {
	Buckets []float64
	Counts  []uint64
}

type truth struct {
	NumGC, NumForcedGC uint32
	PauseTotalNs       uint64
	PauseNs, PauseEnd  []uint64
	Operations         uint64
	ElapsedNs          int64
	Histograms         map[string]histogram
}

func readHistograms() map[string]histogram {
	out := map[string]histogram{}
	for _, name := range histograms {
		sample := []metrics.Sample{{Name: name}}
		metrics.Read(sample)
		if sample[0].Value.Kind() != metrics.KindFloat64Histogram {
			continue
		}
		h := sample[0].Value.Float64Histogram()
		buckets := append([]float64(nil), h.Buckets...)
		// JSON has no infinities.
		if len(buckets) > 0 && buckets[0] < 0 {
			buckets[0] = -1
		}
		if n := len(buckets); n > 0 && buckets[n-1] > 1e300 {
			buckets[n-1] = 1e300
		}
		out[name] = histogram{buckets, append([]uint64(nil), h.Counts...)}
	}
	return out
}

func numGC() uint32 {
	var stats debug.GCStats
	debug.ReadGCStats(&stats)
	return uint32(stats.NumGC)
}

func main() {
	flag.Parse()
	debug.SetGCPercent(*percent)
	ballast := make([][]byte, *live)
	for i := range ballast {
		ballast[i] = make([]byte, 1<<20)
	}
	block := make(chan bool)
	for i := 0; i < *parked; i++ {
		go func() { <-block }()
	}
	if *idle {
		debug.SetGCPercent(-1)
	}
	input := bufio.NewReader(os.Stdin)
	input.ReadString('\n')
	if *cpuProfile != "" {
		file, err := os.Create(*cpuProfile)
		if err != nil {
			panic(err)
		}
		pprof.StartCPUProfile(file)
		defer file.Close()
	}
	begin, first := time.Now(), numGC()
	var done atomic.Bool
	var operations uint64
	var group sync.WaitGroup
	enough := func() bool {
		if *seconds > 0 {
			return time.Since(begin).Seconds() >= *seconds
		}
		return int(numGC()-first) >= *cycles
	}
	switch {
	case *idle:
		time.Sleep(time.Duration(*seconds * float64(time.Second)))
	case *forced:
		for !enough() {
			runtime.GC()
			time.Sleep(*every)
		}
	default:
		for w := 0; w < *workers; w++ {
			group.Add(1)
			go func(slot int) {
				defer group.Done()
				n := uint64(0)
				for !done.Load() {
					sink[slot].Store(make([]byte, 1+int(n*37%2048)))
					n++
				}
				atomic.AddUint64(&operations, n)
			}(w)
		}
		for !enough() {
			time.Sleep(time.Millisecond)
		}
		done.Store(true)
		group.Wait()
	}
	elapsed := time.Since(begin)
	pprof.StopCPUProfile()
	debug.SetGCPercent(-1)
	runtime.GC() // finish a cycle that is under way, and its sweep
	result := truth{Histograms: readHistograms(), Operations: operations, ElapsedNs: elapsed.Nanoseconds()}
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	result.NumGC, result.NumForcedGC = stats.NumGC, stats.NumForcedGC
	result.PauseTotalNs = stats.PauseTotalNs
	result.PauseNs, result.PauseEnd = stats.PauseNs[:], stats.PauseEnd[:]
	json.NewEncoder(os.Stdout).Encode(result)
	io.Copy(io.Discard, input)
	runtime.KeepAlive(ballast)
	close(block)
}
