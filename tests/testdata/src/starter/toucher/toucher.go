// Package toucher makes 8192 page faults of 4 KiB to initialize: it touches 32 MiB that were never used before.
package toucher

import (
	"syscall"
	"unsafe"
)

const (
	size       = 32 << 20
	page       = 4096
	noHugePage = 15 // MADV_NOHUGEPAGE
)

// Memory stays reachable.
var Memory []byte

func init() {
	Memory = make([]byte, size)
	// where the system gives huge pages to everybody, there would be 16 faults
	syscall.RawSyscall(syscall.SYS_MADVISE, uintptr(unsafe.Pointer(&Memory[0])), size, noHugePage)
	for at := 0; at < size; at += page {
		Memory[at] = 1
	}
}
