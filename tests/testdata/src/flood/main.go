// flood makes system calls as fast as it can: flood COUNT [THREADS].
//
// It waits for a line on standard input first, so that whoever watches can get ready.
package main

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"
)

func main() {
	count, threads := 1000000, 1
	if len(os.Args) > 1 {
		count, _ = strconv.Atoi(os.Args[1])
	}
	if len(os.Args) > 2 {
		threads, _ = strconv.Atoi(os.Args[2])
	}
	bufio.NewReader(os.Stdin).ReadString('\n')
	begin := time.Now()
	var group sync.WaitGroup
	for t := 0; t < threads; t++ {
		group.Add(1)
		go func() {
			defer group.Done()
			for i := 0; i < count/threads; i++ {
				syscall.RawSyscall(syscall.SYS_GETPPID, 0, 0, 0)
			}
		}()
	}
	group.Wait()
	fmt.Printf("%d calls in %d ns\n", count/threads*threads, time.Since(begin).Nanoseconds())
}
