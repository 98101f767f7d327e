// tick SECONDS collects exactly fifty times a second, and then prints when each collection had ended: one line of JSON, with
// CLOCK_MONOTONIC nanoseconds. A second thread is busy all the time.
package main

import (
	"encoding/json"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"time"
	"unsafe"
)

const clockMonotonic = 1

func now() int64 {
	var at syscall.Timespec
	syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, clockMonotonic, uintptr(unsafe.Pointer(&at)), 0)
	return at.Nano()
}

//go:noinline
func busy() {
	for {
	}
}

func main() {
	seconds, _ := strconv.ParseFloat(os.Args[1], 64)
	go busy()
	var ended []int64
	clock := time.NewTicker(20 * time.Millisecond)
	for i := 0; i < int(seconds*50); i++ {
		<-clock.C
		runtime.GC()
		ended = append(ended, now())
	}
	json.NewEncoder(os.Stdout).Encode(map[string][]int64{"ended": ended})
}
