// tabled has a table of 32 MiB in its data: tabled MODE.
//
//	writes  its init writes to each page of it
//	reads   its init reads each page of it
//	lazy    nobody touches it before the program listens
package main

import (
	"net"
	"os"

	"targets/tabled/table"
)

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		os.Exit(3)
	}
	listener.Accept()
	table.Sum()
}
