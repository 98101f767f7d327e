// advisedgc allocates a little and does what it is asked to, over and over, until it is ended: advisedgc MODE.
//
//	statistics  reads its memory statistics every 2 ms
//	profiles    takes the stacks of all its goroutines, of which there are 200, every 2 ms
//	forced      forces a collection every 20 ms
//	fills       allocates about 400 MiB a second, at a pace that is not the collector's
//	mended      none of that, as often as the first two
//	calm        none of that, as often as forced: what it allocates is the same
//
// A number behind it says how many nodes of 128 bytes it keeps, 200,000 without it.
package main

import (
	"os"
	"runtime"
	"strconv"
	"time"
)

type node struct {
	next *node
	pad  [120]byte
}

var (
	kept *node
	sink []byte
)

func statistics() {
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
}

func profiles(room []byte) {
	runtime.Stack(room, true)
}

func forced() {
	runtime.GC()
}

// fill allocates as much as is due by the clock.
func fill(begin time.Time, filled *int) {
	for due := int(time.Since(begin).Seconds() * 400 * 1024); *filled < due; *filled++ {
		sink = make([]byte, 1024)
	}
}

func main() {
	nodes := 200_000
	if len(os.Args) > 2 {
		nodes, _ = strconv.Atoi(os.Args[2])
	}
	for i := 0; i < nodes; i++ {
		kept = &node{next: kept}
	}
	for i := 0; i < 200; i++ {
		go func() { select {} }()
	}
	room := make([]byte, 1<<20)
	begin, filled := time.Now(), 0
	for {
		sink = make([]byte, 64<<10)
		switch os.Args[1] {
		case "statistics":
			statistics()
			time.Sleep(2 * time.Millisecond)
		case "profiles":
			profiles(room)
			time.Sleep(2 * time.Millisecond)
		case "forced":
			forced()
			time.Sleep(20 * time.Millisecond)
		case "calm":
			time.Sleep(20 * time.Millisecond)
		case "fills":
			fill(begin, &filled)
			time.Sleep(time.Millisecond)
		default:
			time.Sleep(2 * time.Millisecond)
		}
	}
}
