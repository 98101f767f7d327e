// spender allocates at known places in known parts, and takes no heap profile: nothing in it reads one.
//
// At a line on standard input with a number of seconds it allocates for so long, in several goroutines, and then prints a
// line of JSON: how often each place has allocated meanwhile, and what the runtime counted. It exits at the end of standard
// input.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"
)

var (
	workers = flag.Int("workers", 2, "goroutines that allocate")
	pause   = flag.Duration("pause", 2*time.Millisecond, "what they sleep between rounds of half a megabyte")
	live    = flag.Int("live", 64, "MiB kept alive, so that collections are rare")
	sinks   [64]any
)

type linked struct {
	next *linked
	_    [5]uint64
}

//go:noinline
func small(slot int) { sinks[slot] = make([]byte, 64) }

//go:noinline
func medium(slot int) { sinks[slot] = make([]byte, 1024) }

//go:noinline
func pointers(slot int) { sinks[slot] = &linked{} }

//go:noinline
func large(slot int) { sinks[slot] = make([]byte, 100_000) }

//go:noinline
func deep(slot, n int) {
	if n == 0 {
		sinks[slot] = new([512]byte)
		return
	}
	deep(slot, n-1)
}

func inlined(slot int) { inlinedToo(slot) }

func inlinedToo(slot int) { sinks[slot] = new([256]byte) }

// round is half a megabyte: of what make returns and an interface holds, the slice's header is 24 bytes of its own.
func round(slot int) {
	for i := 0; i < 64; i++ {
		medium(slot)
		for j := 0; j < 4; j++ {
			medium(slot)
			small(slot)
			pointers(slot)
			inlined(slot)
		}
	}
	for i := 0; i < 20; i++ {
		deep(slot, i)
	}
	large(slot)
}

func main() {
	flag.Parse()
	kept := make([]byte, *live<<20)
	input := bufio.NewReader(os.Stdin)
	for {
		line, err := input.ReadString('\n')
		if err != nil {
			break
		}
		seconds, err := strconv.ParseFloat(strings.TrimSpace(line), 64)
		if err != nil {
			panic(err)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		rounds := make([]int, *workers)
		var group sync.WaitGroup
		end := time.Now().Add(time.Duration(seconds * float64(time.Second)))
		for w := range rounds {
			group.Add(1)
			go func(w int) {
				defer group.Done()
				for time.Now().Before(end) {
					round(w)
					rounds[w]++
					time.Sleep(*pause)
				}
			}(w)
		}
		group.Wait()
		runtime.ReadMemStats(&after)
		total := 0
		for _, n := range rounds {
			total += n
		}
		json.NewEncoder(os.Stdout).Encode(map[string]any{
			"Rounds":     total,
			"TotalAlloc": after.TotalAlloc - before.TotalAlloc,
			"Mallocs":    after.Mallocs - before.Mallocs,
			"NumGC":      after.NumGC - before.NumGC,
		})
	}
	runtime.KeepAlive(kept)
}
