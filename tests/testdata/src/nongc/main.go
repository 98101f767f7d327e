// nongc stops the world for reasons that are no collections, a known number of times each: nongc COUNT.
//
// It waits for a line on standard input first and for its end last; the counts and the runtime's own histograms (before
// and after) are one line of JSON on standard output.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"runtime/pprof"
	"runtime/trace"
	"strconv"
	"time"
)

var names = []string{"/sched/pauses/stopping/other:seconds", "/sched/pauses/total/other:seconds"}

type histogram struct {
	Buckets []float64
	Counts  []uint64
}

func read() map[string]histogram {
	out := map[string]histogram{}
	for _, name := range names {
		sample := []metrics.Sample{{Name: name}}
		metrics.Read(sample)
		if sample[0].Value.Kind() == metrics.KindFloat64Histogram {
			h := sample[0].Value.Float64Histogram()
			buckets := append([]float64(nil), h.Buckets...)
			buckets[0], buckets[len(buckets)-1] = -1, 1e300
			out[name] = histogram{buckets, append([]uint64(nil), h.Counts...)}
		}
	}
	return out
}

func main() {
	count := 20
	if len(os.Args) > 1 {
		count, _ = strconv.Atoi(os.Args[1])
	}
	debug.SetGCPercent(-1)
	busy := true
	for i := 0; i < 2; i++ {
		go func() {
			for n := 0; busy; n++ {
				if n%1000 == 0 {
					time.Sleep(time.Microsecond)
				}
			}
		}()
	}
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		panic(err)
	}
	input := bufio.NewReader(os.Stdin)
	input.ReadString('\n')
	before := read()
	var stats runtime.MemStats
	var out bytes.Buffer
	stack := make([]byte, 1<<16)
	procs := runtime.GOMAXPROCS(0)
	for i := 0; i < count; i++ {
		runtime.ReadMemStats(&stats)
		runtime.GOMAXPROCS(procs + 1 + i%2)
		runtime.Stack(stack, true)
		out.Reset()
		pprof.Lookup("goroutine").WriteTo(&out, 0)
		debug.WriteHeapDump(null.Fd())
		if err := trace.Start(io.Discard); err != nil {
			panic(err)
		}
		trace.Stop()
	}
	json.NewEncoder(os.Stdout).Encode(map[string]interface{}{"Count": count, "Before": before, "After": read()})
	io.Copy(io.Discard, input)
}
