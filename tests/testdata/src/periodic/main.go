// periodic makes the runtime force a collection every so often instead of after two minutes: periodic COUNT.
//
// It needs -ldflags=-checklinkname=0 from Go 1.23 on. It waits for a line on standard input first and for its end last,
// and prints how many collections there were as one line of JSON.
package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"time"
	_ "unsafe"
)

//go:linkname forcegcperiod runtime.forcegcperiod
var forcegcperiod int64

func main() {
	count := 5
	if len(os.Args) > 1 {
		count, _ = strconv.Atoi(os.Args[1])
	}
	input := bufio.NewReader(os.Stdin)
	input.ReadString('\n')
	forcegcperiod = 50e6
	runtime.GC() // the runtime waits for a first collection
	var stats runtime.MemStats
	for {
		time.Sleep(20 * time.Millisecond)
		if runtime.ReadMemStats(&stats); int(stats.NumGC) > count {
			break
		}
	}
	forcegcperiod = 120e9
	time.Sleep(20 * time.Millisecond)
	runtime.ReadMemStats(&stats)
	fmt.Printf("{\"NumGC\":%d,\"NumForcedGC\":%d}\n", stats.NumGC, stats.NumForcedGC)
	io.Copy(io.Discard, input)
}
