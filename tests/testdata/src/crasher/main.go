// crasher never reaches main: the init of its package boom panics.
package main

import (
	"fmt"

	_ "targets/crasher/boom"
)

func main() { fmt.Println("main") }
