// advised starts as slowly as it is asked to: each argument names a package whose init then wastes time, in the way that it is
// called; without it that package is the mended one, which does nothing before it is needed. "later" does its work in main.main
// before it listens. It then waits for a connection.
package main

import (
	"net"
	"os"

	"targets/advised/asked"
	_ "targets/advised/collects"
	"targets/advised/computes"
	_ "targets/advised/files"
	_ "targets/advised/memory"
	_ "targets/advised/names"
	_ "targets/advised/regexps"
	_ "targets/advised/templates"
)

func main() {
	if asked.For("later") {
		computes.Work()
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		os.Exit(3)
	}
	listener.Accept()
}
