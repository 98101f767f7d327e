// Package table has a table in the program's data.
package table

import "os"

const page = 4096

var (
	Table = [32 << 20]byte{1: 1}
	sum   int
)

func init() {
	switch os.Args[len(os.Args)-1] {
	case "writes":
		for at := 0; at < len(Table); at += page {
			Table[at]++
		}
	case "reads":
		Sum()
	}
}

// Sum reads each page.
func Sum() {
	for at := 0; at < len(Table); at += page {
		sum += int(Table[at])
	}
}
