// profiled writes its heap profile to standard output and does nothing else: no collection that it has asked for.
package main

import (
	"os"
	"runtime/pprof"
)

func main() { pprof.WriteHeapProfile(os.Stdout) }
