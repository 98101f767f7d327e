// hoarder allocates at known places, keeps a part of it, and writes what its own heap profile says.
//
// At a line on standard input it allocates another round, collects twice, so that the profile is published, and writes
// pprof's heap profile (debug=1 and debug=0) to the files that its arguments name, and a line of JSON. If the line is
// "allocate", it does that alone. It exits at the end of standard input.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
)

var (
	rate    = flag.Int("rate", 512<<10, "bytes from one sample to the next")
	text    = flag.String("text", "", "where the profile goes as text")
	profile = flag.String("profile", "", "where it goes for pprof")
	leak    = flag.Int("leak", 8, "MiB that main.hoard keeps of each round")
	sites   = flag.Int("sites", 0, "allocations of as many sizes, by main.sized")

	kept = make([][]byte, 0, 1<<18)
	sink any
)

//go:noinline
func hoard(size int) { kept = append(kept, make([]byte, size)) }

//go:noinline
func churn(size int) { sink = make([]byte, size) }

//go:noinline
func deep(n, size int) {
	if n == 0 {
		churn(size)
		return
	}
	deep(n-1, size)
}

func inlined(size int) { inlinedToo(size) }

func inlinedToo(size int) { sink = make([]int64, size/8) }

//go:noinline
func many[T any](n int) []T { return make([]T, n) }

//go:noinline
func sized(size int) { kept = append(kept, make([]byte, size)) }

func round() {
	for i := 0; i < *leak<<20; i += 4096 {
		hoard(4096)
	}
	for i := 0; i < 16<<20; i += 1024 {
		churn(1024)
	}
	for i := 0; i < 4<<20; i += 512 {
		deep(20, 512)
		inlined(512)
	}
	sink = many[struct{ a, b int }](1 << 16)
	sink = many[string](1 << 15)
	hoard(3 << 20) // a large one
	for i := 0; i < *sites; i++ {
		sized(8 * (i + 1))
	}
}

func main() {
	flag.Parse()
	runtime.MemProfileRate = *rate
	debug.SetGCPercent(-1)
	input := bufio.NewReader(os.Stdin)
	for n := 1; ; n++ {
		line, err := input.ReadString('\n')
		if err != nil {
			return
		}
		round()
		sink = nil
		if line == "allocate\n" {
			json.NewEncoder(os.Stdout).Encode(map[string]int{"line": n})
			continue
		}
		runtime.GC()
		runtime.GC()
		for level, path := range []string{*profile, *text} {
			if path == "" {
				continue
			}
			file, err := os.Create(path)
			if err != nil {
				panic(err)
			}
			pprof.Lookup("heap").WriteTo(file, level)
			file.Close()
		}
		json.NewEncoder(os.Stdout).Encode(map[string]int{"line": n})
	}
}
