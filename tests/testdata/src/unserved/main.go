// unserved touches a page that nobody provides: its thread stays in the page fault until a second line of input.
//
// After a line of input one goroutine, which keeps its thread, says in a line of JSON which thread that is, where the page
// is and when it is about to touch it (CLOCK_MONOTONIC ns), and touches it. At the next line userfaultfd provides the page,
// and it says when it had it. It ends when its standard input does.
package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"
)

const (
	clockMonotonic = 1
	// include/uapi/linux/userfaultfd.h
	api         = 0xaa
	ioctlAPI    = 0xc018aa3f
	ioctlWatch  = 0xc020aa00
	ioctlZero   = 0xc020aa04
	missingOnly = 1
)

var numbers = map[string]uintptr{"amd64": 323, "arm64": 282} // of userfaultfd(2)

type request struct {
	start, length, mode, result uint64
}

func now() int64 {
	var at syscall.Timespec
	syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, clockMonotonic, uintptr(unsafe.Pointer(&at)), 0)
	return at.Nano()
}

func call(number uintptr, arguments ...uintptr) uintptr {
	all := append(arguments, 0, 0, 0)
	result, _, errno := syscall.Syscall(number, all[0], all[1], all[2])
	if errno != 0 {
		panic(errno)
	}
	return result
}

func main() {
	size := os.Getpagesize()
	page, err := syscall.Mmap(-1, 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	if err != nil {
		panic(err)
	}
	address := uint64(uintptr(unsafe.Pointer(&page[0])))
	fd := call(numbers[runtime.GOARCH], syscall.O_CLOEXEC)
	hello := [3]uint64{api}
	call(syscall.SYS_IOCTL, fd, ioctlAPI, uintptr(unsafe.Pointer(&hello)))
	watch := request{address, uint64(size), missingOnly, 0}
	call(syscall.SYS_IOCTL, fd, ioctlWatch, uintptr(unsafe.Pointer(&watch)))
	lines := bufio.NewScanner(os.Stdin)
	lines.Scan()
	go func() {
		runtime.LockOSThread()
		fmt.Printf("{\"tid\": %d, \"address\": %d, \"begin_ns\": %d}\n", syscall.Gettid(), address, now())
		page[0]++
		fmt.Printf("{\"end_ns\": %d}\n", now())
	}()
	for lines.Scan() {
		zero := request{address, uint64(size), 0, 0}
		call(syscall.SYS_IOCTL, fd, ioctlZero, uintptr(unsafe.Pointer(&zero)))
	}
}
