// lifecycle ends in a chosen way while it allocates: lifecycle exit CODE | exec PROGRAM [ARGS] | panic | forever.
//
// Its output is fixed, so that whoever watches can be shown to leave it alone.
package main

import (
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"
)

var sink []byte

func main() {
	how := "forever"
	if len(os.Args) > 1 {
		how = os.Args[1]
	}
	fmt.Println("begin")
	for begin := time.Now(); how == "forever" || time.Since(begin) < 1500*time.Millisecond; {
		sink = make([]byte, 4096)
	}
	fmt.Println("end", len(sink))
	switch how {
	case "exit":
		code, _ := strconv.Atoi(os.Args[2])
		os.Exit(code)
	case "exec":
		fmt.Println(syscall.Exec(os.Args[2], os.Args[2:], os.Environ()))
	case "panic":
		panic("as asked")
	}
}
