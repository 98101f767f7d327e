// plugged opens the plugin PATH, as it starts or ("late") when it has got a line on standard input, and lets that collect;
// then it collects as often itself. What the runtime counted is one line of JSON. It exits at the end of its input.
package main

import (
	"bufio"
	"encoding/json"
	"io"
	"os"
	"plugin"
	"runtime"
)

const cycles = 60

func open() func(int) {
	opened, err := plugin.Open(os.Args[1])
	if err != nil {
		panic(err)
	}
	collect, err := opened.Lookup("Collect")
	if err != nil {
		panic(err)
	}
	return collect.(func(int))
}

func main() {
	var collect func(int)
	if os.Args[2] == "early" {
		collect = open()
	}
	input := bufio.NewReader(os.Stdin)
	os.Stdout.WriteString("ready\n")
	input.ReadString('\n')
	if collect == nil {
		collect = open()
	}
	collect(cycles)
	for i := 0; i < cycles; i++ {
		runtime.GC()
	}
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	json.NewEncoder(os.Stdout).Encode(map[string]uint32{"NumGC": stats.NumGC})
	io.Copy(io.Discard, input)
}
