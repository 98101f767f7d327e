// starter has package inits of known cost, tells when main begins, and does what it is asked to, in the order given.
//
// It writes to standard error, with times in CLOCK_MONOTONIC nanoseconds, "init NS" when its
// last init ended, "burner NS" (see there), "main NS", and then for the options:
//
//	-listen     "listening NS" and listens on a port of 127.0.0.1: "listen NS PORT"; takes one connection: "accept NS"
//	-gc N       allocates until the GC has run N times more: "gc NS"
//	-echo       writes its folder, arguments, GOTRACE_TEST and its standard input to standard output
//	-wait       waits for SIGTERM, "wait NS" when it does, and exits with 0
//	-exit CODE  exits
//
// The first GC begins in the init of the package toucher, which makes the heap larger than 4 MiB.
package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"
	"unsafe"

	"targets/starter/burner"
	_ "targets/starter/dialer"
	_ "targets/starter/sleeper"
	_ "targets/starter/toucher"
	_ "targets/starter/twenty"
)

const clockMonotonic = 1

var (
	sink     []byte
	lastInit int64
)

func init() { lastInit = now() }

func now() int64 {
	var at syscall.Timespec
	syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, clockMonotonic, uintptr(unsafe.Pointer(&at)), 0)
	return at.Nano()
}

func tell(what string, at int64, more ...interface{}) {
	fmt.Fprintln(os.Stderr, append([]interface{}{what, at}, more...)...)
}

func fail(what interface{}) {
	fmt.Fprintln(os.Stderr, what)
	os.Exit(3)
}

func listen() {
	before := now()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	at := now()
	if err != nil {
		fail(err)
	}
	tell("listening", before)
	tell("listen", at, listener.Addr().(*net.TCPAddr).Port)
	connection, err := listener.Accept()
	at = now()
	if err != nil {
		fail(err)
	}
	tell("accept", at)
	connection.Close()
	listener.Close()
}

func collect(times uint32) {
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	for end := stats.NumGC + times; stats.NumGC < end; runtime.ReadMemStats(&stats) {
		sink = make([]byte, 1<<20)
	}
	tell("gc", now())
}

func wait() {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGTERM)
	tell("wait", now())
	<-asked
	os.Exit(0)
}

func echo() {
	folder, err := os.Getwd()
	if err != nil {
		fail(err)
	}
	fmt.Printf("cwd %s\nargs %q\nGOTRACE_TEST %q\n", folder, os.Args[1:], os.Getenv("GOTRACE_TEST"))
	io.Copy(os.Stdout, os.Stdin)
}

func main() {
	at := now()
	tell("init", lastInit)
	tell("burner", burner.OnCPU)
	tell("main", at)
	options := os.Args[1:]
	number := func() int {
		if len(options) == 0 {
			fail("a number is missing")
		}
		value, err := strconv.Atoi(options[0])
		if err != nil {
			fail(err)
		}
		options = options[1:]
		return value
	}
	for len(options) > 0 {
		option := options[0]
		options = options[1:]
		switch option {
		case "-listen":
			listen()
		case "-gc":
			collect(uint32(number()))
		case "-echo":
			echo()
		case "-wait":
			wait()
		case "-exit":
			os.Exit(number())
		default:
			// further arguments are there for -echo
		}
	}
}
