// returner uses memory in rounds, in between which the runtime may return it: returner MODE ROUNDS MIB PAUSE.
//
//	frees   drops the memory after each round and calls debug.FreeOSMemory
//	swings  drops it and collects, so that the background scavenger finds it
//	huge    as frees, and asks for huge pages
//	keeps   writes into the same memory in each round
//
// It works once a line has come on its standard input, and prints what it and the kernel counted from then on.
package main

import (
	"bufio"
	"encoding/json"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"syscall"
	"time"
)

const block = 1 << 20

var kept [][]byte

func free() {
	kept = nil
	debug.FreeOSMemory()
}

func write() {
	for _, each := range kept {
		for at := 0; at < len(each); at += 4096 {
			each[at] = 1
		}
	}
}

func allocate(blocks int) {
	for i := 0; i < blocks; i++ {
		kept = append(kept, make([]byte, block))
	}
}

func usage() syscall.Rusage {
	var found syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &found)
	return found
}

func main() {
	mode := os.Args[1]
	rounds, _ := strconv.Atoi(os.Args[2])
	blocks, _ := strconv.Atoi(os.Args[3])
	pause, _ := time.ParseDuration(os.Args[4])
	bufio.NewReader(os.Stdin).ReadString('\n')
	before := usage()
	for i := 0; i < rounds; i++ {
		if len(kept) == 0 {
			allocate(blocks)
		}
		if mode == "huge" {
			for _, each := range kept {
				syscall.Madvise(each, syscall.MADV_HUGEPAGE)
			}
		}
		write()
		switch mode {
		case "huge":
			time.Sleep(pause) // so that somebody can look how they are mapped
			free()
			continue
		case "frees":
			free()
		case "swings":
			kept = nil
			runtime.GC()
		}
		time.Sleep(pause)
	}
	after := usage()
	json.NewEncoder(os.Stdout).Encode(map[string]int64{
		"Minor":  after.Minflt - before.Minflt,
		"Major":  after.Majflt - before.Majflt,
		"System": after.Stime.Nano() - before.Stime.Nano(),
		"User":   after.Utime.Nano() - before.Utime.Nano(),
	})
	bufio.NewReader(os.Stdin).ReadString('\n')
}
