// carena PATH: C code keeps memory, small pieces by several threads and one large block, and a file is mapped and read.
//
// When all of it is there it writes a line, with an address in Go's heap. It ends when its standard input does.
package main

/*
#include <stdlib.h>
#include <string.h>
static void *last;
static void small_pieces(void) {
	for (int i = 0; i < 4000; i++) {
		char *p = malloc(1000);
		memset(p, 1, 1000);
		*(void **)p = last;
		last = p;
	}
}
static void large_block(void) { last = memset(malloc(40 << 20), 1, 40 << 20); }
*/
import "C"

import (
	"fmt"
	"os"
	"runtime"
	"sync"
	"syscall"
)

func main() {
	var done sync.WaitGroup
	turn := make(chan bool, 1)
	for i := 0; i < 6; i++ {
		done.Add(1)
		go func() {
			runtime.LockOSThread() // and it stays: with the thread its arena would be another's
			turn <- true
			C.small_pieces()
			<-turn
			done.Done()
			select {}
		}()
	}
	done.Wait()
	C.large_block()
	file, err := os.Open(os.Args[1])
	if err != nil {
		panic(err)
	}
	status, err := file.Stat()
	if err != nil {
		panic(err)
	}
	mapped, err := syscall.Mmap(int(file.Fd()), 0, int(status.Size()), syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		panic(err)
	}
	sum := 0
	for i := 0; i < len(mapped); i += 4096 {
		sum += int(mapped[i])
	}
	fmt.Printf("%d %p\n", sum, &turn)
	os.Stdin.Read(make([]byte, 1))
}
