// cgo allocates for a while in a program that is linked with C.
package main

// #include <stdlib.h>
// static int twice(int n) { return 2 * n; }
import "C"

import (
	"fmt"
	"time"
)

var sink []byte

func main() {
	total := 0
	for begin := time.Now(); time.Since(begin) < 2*time.Second; {
		sink = make([]byte, 4096)
		total += int(C.twice(1))
	}
	fmt.Println(total > 0)
}
