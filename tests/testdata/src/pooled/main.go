// pooled keeps some buffers in use for a moment, every so often, and allocates in between: pooled MODE BUFFERS.
//
//	pool    the buffers, of 64 KiB, come from a sync.Pool and go back to it
//	list    they come from a list of its own, and go back to it
//	leaks   they come from a sync.Pool, and are not returned
//	steady  as pool, but one after the other and all the time: the pool is never at rest
//
// It stops after BURSTS rounds (a second number), with how many buffers it had to make, in JSON, or goes on for ever.
package main

import (
	"encoding/json"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

type node struct {
	next *node
	pad  [120]byte
}

var (
	kept *node
	sink []byte
	made atomic.Int64
	pool = sync.Pool{New: func() any { made.Add(1); b := make([]byte, 64<<10); return &b }}
	list = make(chan *[]byte, 1000)
)

func get(mode string) *[]byte {
	if mode == "list" {
		select {
		case b := <-list:
			return b
		default:
			return pool.New().(*[]byte)
		}
	}
	return pool.Get().(*[]byte)
}

func put(mode string, b *[]byte) {
	switch mode {
	case "list":
		list <- b
	case "pool", "steady":
		pool.Put(b)
	}
}

// rest allocates 2 MiB in small pieces.
func rest(mode string) {
	for i := 0; i < 2048; i++ {
		if mode == "steady" && i%64 == 0 {
			put(mode, get(mode))
		}
		sink = make([]byte, 1024)
	}
}

func main() {
	mode := os.Args[1]
	buffers, _ := strconv.Atoi(os.Args[2])
	rounds := 1 << 40
	if len(os.Args) > 3 {
		rounds, _ = strconv.Atoi(os.Args[3])
	}
	for i := 0; i < 20_000; i++ {
		kept = &node{next: kept}
	}
	used := make([]*[]byte, buffers)
	for round := 0; round < rounds; round++ {
		for i := range used {
			used[i] = get(mode)
			if mode == "steady" {
				put(mode, used[i])
			}
		}
		for i := range used {
			if mode != "steady" {
				put(mode, used[i])
			}
			used[i] = nil
		}
		for i := 0; i < 12; i++ {
			rest(mode)
			time.Sleep(2 * time.Millisecond)
		}
	}
	json.NewEncoder(os.Stdout).Encode(map[string]int64{"Made": made.Load()})
}
