// pooled keeps some buffers in use for a moment, every so often, and allocates in between: pooled MODE BUFFERS [ROUNDS].
//
//	pool    the buffers, of 64 KiB, come from a sync.Pool and go back to it
//	two     they come from one of two, at the same line
//	leaks   they come from a sync.Pool, and are not returned
//	many    no buffers, but as many pools of one object each
//
// After ROUNDS it ends, with how many buffers it had to make, in JSON; without them it goes on for ever.
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
	pool = make([]sync.Pool, 1, 2)
)

func buffer() any {
	made.Add(1)
	b := make([]byte, 64<<10)
	return &b
}

func get(i int) *[]byte {
	return pool[i%len(pool)].Get().(*[]byte)
}

// rest allocates 2 MiB in small pieces.
func rest() {
	for i := 0; i < 2048; i++ {
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
	if mode == "two" {
		pool = pool[:2]
	}
	for i := range pool {
		pool[i].New = buffer
	}
	var pools []sync.Pool
	if mode == "many" {
		pools, buffers = make([]sync.Pool, buffers), 0
	}
	used := make([]*[]byte, buffers)
	for round := 0; round < rounds; round++ {
		for i := range used {
			used[i] = get(i)
		}
		for i := range used {
			if mode != "leaks" {
				pool[i%len(pool)].Put(used[i])
			}
			used[i] = nil
		}
		for i := range pools {
			pools[i].Put(kept)
		}
		for i := 0; i < 12; i++ {
			rest()
			time.Sleep(2 * time.Millisecond)
		}
	}
	json.NewEncoder(os.Stdout).Encode(map[string]int64{"Made": made.Load()})
}
