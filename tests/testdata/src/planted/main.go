// planted stops the world over and over and plants one cause that lengthens the stops: planted MODE SECONDS.
//
// It waits for a line on standard input, works for SECONDS, and prints one line of JSON: when the cause was at work, as
// CLOCK_MONOTONIC nanoseconds, [begin, end, how long its thread had no CPU meanwhile]. The modes:
//
//	spin     two goroutines that can be preempted at any moment: whatever lengthens a stop comes from outside
//	locked   the same, each locked to its thread
//	memmove  copies 256 MiB at a time, by code that cannot be preempted
//	memclr   clears 256 MiB at a time, likewise
//	both     clears 256 MiB and copies over them, without a preemption point between
//	loop     a loop without a function call, for GODEBUG=asyncpreemptoff=1
//	kernel   fills 64 MiB with pages inside one system call the scheduler is not told of
//	fault    clears memory that was given back to the kernel, in pages of 4 KiB
//	file     reads the file named by the third argument through a mapping, whose pages were dropped before
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

const (
	big            = 256 << 20
	part           = 64 << 20
	clockMonotonic = 1
	clockThread    = 3  // CLOCK_THREAD_CPUTIME_ID
	bind           = 2  // MPOL_BIND
	noHugePage     = 15 // MADV_NOHUGEPAGE
	populateWrite  = 23 // MADV_POPULATE_WRITE, Linux 5.14
)

var (
	done  atomic.Bool
	sink  atomic.Int64
	spans [][3]int64
)

//go:nosplit
func clock(which uintptr) int64 {
	var at syscall.Timespec
	syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, which, uintptr(unsafe.Pointer(&at)), 0)
	return at.Nano()
}

//go:nosplit
func now() int64 { return clock(clockMonotonic) }

// plant notes when work was being done, which needs a CPU.
func plant(work func()) {
	begin, ran := now(), clock(clockThread)
	work()
	ran = clock(clockThread) - ran
	end := now()
	spans = append(spans, [3]int64{begin, end, end - begin - ran})
}

func mapped(size int) []byte {
	memory, err := syscall.Mmap(-1, 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		panic(err)
	}
	advise(memory, noHugePage)
	return memory
}

func advise(memory []byte, how uintptr) {
	_, _, number := syscall.RawSyscall(syscall.SYS_MADVISE, uintptr(unsafe.Pointer(&memory[0])), uintptr(len(memory)), how)
	if number != 0 {
		panic(number)
	}
}

//go:noinline
func spin() {
	for n := int64(0); !done.Load(); n++ {
		if n&0xfffff == 0 {
			sink.Add(1)
		}
	}
}

//go:noinline
func callFree(rounds int) int {
	sum := 0
	for i := 0; i < rounds; i++ {
		sum += i ^ sum
	}
	return sum
}

func zero(memory []byte) {
	for i := range memory {
		memory[i] = 0
	}
}

// settled is memory that NUMA balancing leaves alone: its faults would be a cause of their own.
func settled() []byte {
	memory, nodes := make([]byte, big), uint64(0xff)
	// where there is no NUMA this fails, and need not work
	syscall.RawSyscall6(syscall.SYS_MBIND, uintptr(unsafe.Pointer(&memory[0])), big, bind, uintptr(unsafe.Pointer(&nodes)), 9, 0)
	return memory
}

// prepared does the work once, for its pages. The collection that its memory began may already have to wait for it.
func prepared(work func()) func() {
	work()
	return work
}

func planter(mode string) func() {
	switch mode {
	case "memmove":
		from, to := settled(), settled()
		return prepared(func() { plant(func() { copy(to, from) }) })
	case "both":
		from, to := settled(), settled()
		return prepared(func() {
			begin := now()
			zero(to)
			middle := now()
			copy(to, from)
			end := now()
			spans = append(spans, [3]int64{begin, middle}, [3]int64{middle, end})
		})
	case "memclr":
		memory := settled()
		return prepared(func() { plant(func() { zero(memory) }) })
	case "loop":
		return func() { plant(func() { sink.Add(int64(callFree(20000000))) }) }
	case "kernel":
		memory := mapped(part)
		return func() {
			plant(func() {
				advise(memory, populateWrite)
				advise(memory, syscall.MADV_DONTNEED)
			})
		}
	case "fault":
		memory := mapped(part)
		return func() {
			plant(func() { zero(memory) })
			advise(memory, syscall.MADV_DONTNEED)
		}
	case "file":
		return fileReader(os.Args[3])
	}
	return nil
}

// fileReader touches pages of a file that have to be read in.
func fileReader(name string) func() {
	file, err := os.Open(name)
	if err != nil {
		panic(err)
	}
	info, _ := file.Stat()
	memory, err := syscall.Mmap(int(file.Fd()), 0, int(info.Size()), syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		panic(err)
	}
	advise(memory, syscall.MADV_RANDOM)
	into := make([]byte, 1<<20)
	at := 0
	return func() {
		if at+len(into) > len(memory) {
			at = 0
			advise(memory, syscall.MADV_DONTNEED)
			const dontNeed = 4 // POSIX_FADV_DONTNEED
			syscall.Syscall6(syscall.SYS_FADVISE64, file.Fd(), 0, 0, dontNeed, 0, 0)
		}
		begin := now()
		copy(into, memory[at:])
		spans = append(spans, [3]int64{begin, now(), 0}) // waiting for the disk is part of it
		at += len(into)
	}
}

func main() {
	mode := os.Args[1]
	seconds, _ := strconv.ParseFloat(os.Args[2], 64)
	work := planter(mode)
	bufio.NewReader(os.Stdin).ReadString('\n')
	end := time.Now().Add(time.Duration(seconds * float64(time.Second)))
	finished := make(chan bool)
	if work == nil {
		for i := 1; i < runtime.GOMAXPROCS(0); i++ {
			go func() {
				if mode == "locked" {
					runtime.LockOSThread()
				}
				spin()
			}()
		}
	} else {
		go func() {
			for time.Now().Before(end) {
				work()
			}
			finished <- true
		}()
	}
	gap := int64(100)
	if text := os.Getenv("GAP_US"); text != "" {
		gap, _ = strconv.ParseInt(text, 10, 64)
	}
	var stats runtime.MemStats
	stops := 0
	for time.Now().Before(end) {
		runtime.ReadMemStats(&stats)
		stops++
		for pause := now() + gap*1000; now() < pause; {
		}
	}
	done.Store(true)
	if work != nil {
		<-finished
	}
	text, _ := json.Marshal(map[string]any{"stops": stops, "spans": spans})
	fmt.Println(string(text))
}
