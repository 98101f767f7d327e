// burner spends its time in known places: burner SECONDS.
//
// Each of its threads does one thing and accounts for it by the thread's own clocks. It waits for a line on standard input,
// and prints one line of JSON at the end: nanoseconds by the name of the function at work, or at rest.
//
//	main.heavy, main.light   run main.leaf, which has no frame, for CPU time; main.heavy three times as much
//	main.asleep              sleeps in a system call that the scheduler is not told of
//	main.reader              waits in one that it is told of: reading from a pipe
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

const (
	clockMonotonic = 1
	clockThread    = 3 // CLOCK_THREAD_CPUTIME_ID
)

var (
	end   time.Time
	mutex sync.Mutex
	spent = map[string]int64{}
)

func clock(which uintptr) int64 {
	var at syscall.Timespec
	syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, which, uintptr(unsafe.Pointer(&at)), 0)
	return at.Nano()
}

func account(name string, ns int64) {
	mutex.Lock()
	spent[name] += ns
	mutex.Unlock()
}

// leaf never makes a frame: who called it is to be had from a register, or from the top of the stack.
//
//go:noinline
func leaf(n uint64) uint64 {
	for i := 0; i < 20000; i++ {
		n = n*6364136223846793005 + 1442695040888963407
	}
	return n
}

//go:noinline
func heavy(n uint64) uint64 {
	begin := clock(clockThread)
	for i := 0; i < 300; i++ {
		n = leaf(n) + 1
	}
	account("main.heavy", clock(clockThread)-begin)
	return n
}

//go:noinline
func light(n uint64) uint64 {
	begin := clock(clockThread)
	for i := 0; i < 100; i++ {
		n = leaf(n) + 1
	}
	account("main.light", clock(clockThread)-begin)
	return n
}

func burn(done *sync.WaitGroup) {
	defer done.Done()
	runtime.LockOSThread()
	for n := uint64(1); time.Now().Before(end); {
		n = light(heavy(n))
	}
}

//go:noinline
func asleep() {
	for time.Now().Before(end) {
		wait := syscall.NsecToTimespec(5e6)
		begin := clock(clockMonotonic)
		syscall.RawSyscall(syscall.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&wait)), 0, 0)
		account("main.asleep", clock(clockMonotonic)-begin)
	}
}

//go:noinline
func reader(pipe int) {
	for one := make([]byte, 1); time.Now().Before(end); {
		begin := clock(clockMonotonic)
		syscall.Read(pipe, one)
		account("main.reader", clock(clockMonotonic)-begin)
	}
}

func main() {
	seconds, _ := strconv.ParseFloat(os.Args[1], 64)
	bufio.NewReader(os.Stdin).ReadString('\n')
	end = time.Now().Add(time.Duration(seconds * float64(time.Second)))
	var done sync.WaitGroup
	var pipe [2]int
	syscall.Pipe(pipe[:])
	done.Add(3)
	go burn(&done)
	go func() {
		defer done.Done()
		runtime.LockOSThread()
		asleep()
	}()
	go func() {
		defer done.Done()
		runtime.LockOSThread()
		reader(pipe[0])
	}()
	for time.Now().Before(end) {
		time.Sleep(10 * time.Millisecond)
		syscall.Write(pipe[1], []byte{1})
		runtime.GC()
	}
	syscall.Write(pipe[1], []byte{1})
	done.Wait()
	text, _ := json.Marshal(spent)
	fmt.Println(string(text))
}
