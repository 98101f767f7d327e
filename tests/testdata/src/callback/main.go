// callback spends its time in Go that C has called, and on making stacks larger: callback SECONDS.
//
// It waits for a line on standard input, and prints one line of JSON at the end: nanoseconds of CPU time by the name of the
// function, as the thread's own clock has it.
//
//	main.called   called by C that keeps no frame records, which main.caller has called
//	main.again    called by C that keeps them, which main.called has called; its stack moves meanwhile
//	main.grinder  is in C that keeps no frame records
//	main.grow     needs an ever larger stack, on a new goroutine each time
package main

/*
#cgo CFLAGS: -fno-omit-frame-pointer
#include <stdint.h>

extern uint64_t goCalled(uint64_t n);
extern uint64_t goAgain(uint64_t n);

// On ARM64 C keeps frame records whatever it is told.
#if defined(__x86_64__)
#define WITHOUT_RECORDS __attribute__((noinline, optimize("omit-frame-pointer")))
#define USE_FRAME_POINTER(value) __asm__ volatile("mov %0, %%rbp" : : "r"(value) : "rbp")
#else
#define WITHOUT_RECORDS __attribute__((noinline))
#define USE_FRAME_POINTER(value) (void)(value)
#endif

WITHOUT_RECORDS static uint64_t without_records(uint64_t n) {
	USE_FRAME_POINTER(n);
	return goCalled(n) + 1;
}

WITHOUT_RECORDS static uint64_t grind(uint64_t n) {
	USE_FRAME_POINTER(n);
	for (int i = 0; i < 400000; i++)
		n = n * 6364136223846793005 + 1442695040888963407;
	return n;
}

__attribute__((noinline)) static uint64_t with_records(uint64_t n) { return goAgain(n) + 1; }
*/
import "C"

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"time"
	"unsafe"
)

const clockThread = 3 // CLOCK_THREAD_CPUTIME_ID

var spent = map[string]int64{}

func clock() int64 {
	var at syscall.Timespec
	syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, clockThread, uintptr(unsafe.Pointer(&at)), 0)
	return at.Nano()
}

//go:noinline
func burn(n uint64) uint64 {
	for i := 0; i < 400_000; i++ {
		n = n*6364136223846793005 + 1442695040888963407
	}
	return n
}

//export goCalled
func goCalled(n C.uint64_t) C.uint64_t {
	return C.uint64_t(called(uint64(n)))
}

//export goAgain
func goAgain(n C.uint64_t) C.uint64_t {
	return C.uint64_t(again(uint64(n)))
}

//go:noinline
func called(n uint64) uint64 {
	begin := clock()
	n = burn(n)
	spent["main.called"] += clock() - begin
	return uint64(C.with_records(C.uint64_t(n))) + 1
}

//go:noinline
func again(n uint64) uint64 {
	begin := clock()
	n = deep(n, 10)
	spent["main.again"] += clock() - begin
	return n + 1
}

//go:noinline
func deep(n, depth uint64) uint64 {
	var space [1024]uint64
	space[depth] = n
	if depth == 0 {
		return burn(n) + space[0]
	}
	return deep(n, depth-1) + space[depth]
}

//go:noinline
func caller(n uint64) uint64 {
	return uint64(C.without_records(C.uint64_t(n))) + 1
}

//go:noinline
func grinder(n uint64) uint64 {
	begin := clock()
	n = uint64(C.grind(C.uint64_t(n)))
	spent["main.grinder"] += clock() - begin
	return n + 1
}

//go:noinline
func grow(n, depth uint64) uint64 {
	var space [8192]uint64
	space[depth] = n
	if depth > 0 {
		n = grow(n+1, depth-1)
	}
	return n + space[depth]
}

func main() {
	seconds, _ := strconv.ParseFloat(os.Args[1], 64)
	bufio.NewReader(os.Stdin).ReadString('\n')
	end := time.Now().Add(time.Duration(seconds * float64(time.Second)))
	for n := uint64(1); time.Now().Before(end); {
		done := make(chan uint64)
		go func() {
			runtime.LockOSThread()
			n := grinder(caller(n))
			begin := clock()
			n = grow(n, 60)
			spent["main.grow"] += clock() - begin
			done <- n
		}()
		n = <-done
	}
	text, _ := json.Marshal(spent)
	fmt.Println(string(text))
}
