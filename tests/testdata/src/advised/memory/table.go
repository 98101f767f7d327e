// Package memory makes a table of 64 MiB, and writes to each page of it.
package memory

import "targets/advised/asked"

var Table []byte

func init() {
	if asked.For("memory") {
		Table = make([]byte, 64<<20)
		for at := 0; at < len(Table); at += 4096 {
			Table[at] = 1
		}
	}
}
