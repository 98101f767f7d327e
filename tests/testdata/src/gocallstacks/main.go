// Opens each file three functions deep, and waits until its input ends.
package main

import (
	"io"
	"os"
)

//go:noinline
func innermost(path string) {
	file, err := os.Open(path)
	if err != nil {
		panic(err)
	}
	file.Close()
}

//go:noinline
func inBetween(path string) {
	innermost(path)
}

//go:noinline
func outermost(path string) {
	inBetween(path)
}

func main() {
	for _, path := range os.Args[1:] {
		outermost(path)
	}
	io.ReadAll(os.Stdin)
}
