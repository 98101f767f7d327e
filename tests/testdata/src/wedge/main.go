// wedge MILLISECONDS ROUNDS keeps the world from stopping: after so long one goroutine waits for a flag that nobody sets,
// ROUNDS times around a loop without a call (1000000000000: for ever). With GODEBUG=asyncpreemptoff=1 nothing interrupts it.
//
// All the time the main goroutine stops the world, every 20 ms, to read statistics. When the loop begins, one line of JSON
// says when that was (CLOCK_MONOTONIC ns), and which thread and goroutine it is.
package main

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

const clockMonotonic = 1

var done bool
var stats runtime.MemStats

//go:noinline
func waitForFlag(stop *bool, most int) {
	for i := 0; i < most && !*stop; i++ {
	}
}

func now() int64 {
	var at syscall.Timespec
	syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, clockMonotonic, uintptr(unsafe.Pointer(&at)), 0)
	return at.Nano()
}

func main() {
	after, _ := strconv.Atoi(os.Args[1])
	most, _ := strconv.Atoi(os.Args[2])
	go func() {
		runtime.LockOSThread()
		text := make([]byte, 64)
		goid := strings.Fields(string(text[:runtime.Stack(text, false)]))[1]
		time.Sleep(time.Duration(after) * time.Millisecond)
		fmt.Printf("{\"begin_ns\": %d, \"tid\": %d, \"goid\": %s}\n", now(), syscall.Gettid(), goid)
		waitForFlag(&done, most)
	}()
	for {
		runtime.ReadMemStats(&stats)
		time.Sleep(20 * time.Millisecond)
	}
}
