// lister collects, command by command, and says what runtime/metrics has counted.
//
// Commands are lines on standard input: "gc N" (N collections), "keep N" (N MiB more that stay alive, and a collection),
// "beat" (a collection every 5 milliseconds until the next line). After each comes a line of JSON; nothing is counted then
// until the next.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"runtime/metrics"
	"time"
)

var kept [][]byte

func main() {
	input := bufio.NewScanner(os.Stdin)
	lines := make(chan string)
	go func() {
		for input.Scan() {
			lines <- input.Text()
		}
		close(lines)
	}()
	samples := []metrics.Sample{
		{Name: "/gc/heap/live:bytes"}, {Name: "/gc/cycles/total:gc-cycles"}, {Name: "/sched/gomaxprocs:threads"},
	}
	began := time.Now()
	for line := range lines {
		var command string
		var count int
		fmt.Sscan(line, &command, &count)
		switch command {
		case "gc":
			for ; count > 0; count-- {
				runtime.GC()
			}
		case "keep":
			for ; count > 0; count-- {
				kept = append(kept, make([]byte, 1<<20))
			}
			runtime.GC()
		case "beat":
			fmt.Println("{}")
			for beating := true; beating; {
				select {
				case <-lines:
					beating = false
				case <-time.After(5 * time.Millisecond):
					runtime.GC()
				}
			}
		}
		metrics.Read(samples)
		values := map[string]float64{"elapsed": time.Since(began).Seconds()}
		for _, sample := range samples {
			if sample.Value.Kind() == metrics.KindUint64 {
				values[sample.Name] = float64(sample.Value.Uint64())
			}
		}
		text, _ := json.Marshal(values)
		fmt.Println(string(text))
	}
}
