// callers allocates from N different stacks, of which the memory profile keeps each, says when it is done, and waits for the
// end of its input.
package main

import (
	"io"
	"os"
	"runtime"
	"strconv"
)

var sink []byte

//go:noinline
func left(depth, path int) {
	next(depth, path)
}

//go:noinline
func right(depth, path int) {
	next(depth, path)
}

//go:noinline
func next(depth, path int) {
	if depth == 0 {
		sink = make([]byte, 16)
	} else if path&1 == 0 {
		left(depth-1, path>>1)
	} else {
		right(depth-1, path>>1)
	}
}

func main() {
	runtime.MemProfileRate = 1
	count, _ := strconv.Atoi(os.Args[1])
	for path := 0; path < count; path++ {
		next(13, path)
	}
	os.Stdout.WriteString("done\n")
	io.Copy(io.Discard, os.Stdin)
}
