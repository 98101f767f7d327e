// stopper collects every so often, and stops the world once more to write down the stacks of its goroutines: with more of
// them the stop is longer.
//
// It ends with its standard input.
package main

import (
	"flag"
	"io"
	"os"
	"runtime"
	"time"
)

var (
	every      = flag.Duration("every", 100*time.Millisecond, "how often")
	goroutines = flag.Int("goroutines", 10, "that wait meanwhile")
)

func main() {
	flag.Parse()
	block := make(chan bool)
	for i := 0; i < *goroutines; i++ {
		go func() { <-block }()
	}
	go func() {
		text := make([]byte, 16<<20)
		for range time.Tick(*every) {
			runtime.GC()
			runtime.Stack(text, true)
		}
	}()
	io.Copy(io.Discard, os.Stdin)
}
