// What plugged opens.
package main

import "runtime"

// Collect makes so many collections.
func Collect(cycles int) {
	for i := 0; i < cycles; i++ {
		runtime.GC()
	}
}

func main() {}
