// Package memory makes a table of 64 MiB, and writes to each page of it; asked for as "huge", it asks for huge pages first.
package memory

import (
	"syscall"

	"targets/advised/asked"
)

var Table []byte

func init() {
	if asked.For("memory") {
		Table = make([]byte, 64<<20)
	}
	if asked.For("huge") {
		Table, _ = syscall.Mmap(-1, 0, 64<<20, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
		syscall.Madvise(Table, 14) // MADV_HUGEPAGE
	}
	if Table != nil {
		for at := 0; at < len(Table); at += 4096 {
			Table[at] = 1
		}
	}
}
