// advisedgc allocates a little and does what it is asked to, over and over, until it is ended: advisedgc MODE.
//
//	statistics  reads its memory statistics every 2 ms
//	profiles    takes the stacks of all its goroutines, of which there are 200, every 2 ms
//	forced      forces a collection every 20 ms
//	mended      none of that
package main

import (
	"os"
	"runtime"
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

func main() {
	for i := 0; i < 200_000; i++ {
		kept = &node{next: kept}
	}
	for i := 0; i < 200; i++ {
		go func() { select {} }()
	}
	room := make([]byte, 1<<20)
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
		default:
			time.Sleep(2 * time.Millisecond)
		}
	}
}
