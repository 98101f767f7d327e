// shapes gives its memory a known shape, tells what the runtime says of it in one line of JSON, and keeps still.
//
//	shapes live MIB        objects of 128 bytes that stay
//	shapes fragments MIB   objects of 128 bytes of which every eighth stays
//	shapes freed MIB       a large slice that is gone
//	shapes stacks COUNT    goroutines with stacks of 16 KiB
//	shapes file PATH       a mapped file, read from its beginning to its end
//	shapes touch MIB       after a line of input: a slice that is written
//	shapes unread MIB      a slice that is read and never written: the kernel's zero page
//	shapes sparse MIB      objects of 8 KiB of which one in 200 stays
//	shapes large COUNT     objects of 40 KiB and a byte, in spans of 48 KiB
//	shapes again MIB       a large slice that is gone; after a line of input another, and a second line of JSON
//	shapes scavenged MIB   a large slice that is gone; after a line of input the scavenger may return it
//	shapes malloc MIB      C's blocks of 1000 bytes, half of them each thread's own (built with cgo)
//
// A word more, and debug.FreeOSMemory is called before it tells. It ends when its standard input does.
package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

type object [128]byte

type page [8192]byte

var (
	kept    []*object
	pages   []*page
	slices  [][]byte
	malloc  func(mib int) // set where there is C
	mapped  []byte
	slice   []byte
	once    bool // one collection has to do
	sum     int
	waiting = make(chan bool)
)

func fill(mib int, keep func(number int) bool) {
	for number := 0; number < mib<<20/128; number++ {
		each := new(object)
		each[0] = 1
		if keep(number) {
			kept = append(kept, each)
		}
	}
}

//go:noinline
func deep(left int) byte {
	var room [1024]byte
	room[left] = byte(left)
	if left == 0 {
		<-waiting
		return room[0]
	}
	return room[left] + deep(left-1)
}

func number() int {
	value, err := strconv.Atoi(os.Args[2])
	if err != nil {
		panic(err)
	}
	return value
}

func shape() {
	switch os.Args[1] {
	case "live":
		fill(number(), func(int) bool { return true })
	case "fragments":
		all := make([]*object, number()<<20/128)
		for i := range all {
			all[i] = new(object)
			all[i][0] = 1
		}
		for i := 0; i < len(all); i += 8 {
			kept = append(kept, all[i])
		}
	case "freed", "again", "scavenged":
		// The scavenger keeps as much as was in use at the last collection, while the goal stays: when this still was.
		debug.SetGCPercent(-1)
		once = true
		written(number())
		slice = nil
	case "stacks":
		for i := 0; i < number(); i++ {
			go deep(10)
		}
		for i := 0; i < 100; i++ {
			runtime.Gosched()
		}
	case "file":
		file, err := os.Open(os.Args[2])
		if err != nil {
			panic(err)
		}
		status, err := file.Stat()
		if err != nil {
			panic(err)
		}
		mapped, err = syscall.Mmap(int(file.Fd()), 0, int(status.Size()), syscall.PROT_READ, syscall.MAP_SHARED)
		if err != nil {
			panic(err)
		}
		for i := 0; i < len(mapped); i += 4096 {
			sum += int(mapped[i])
		}
	case "touch":
		var room [1]byte
		syscall.Read(0, room[:])
		slice = make([]byte, number()<<20)
		for i := 0; i < len(slice); i += 4096 {
			slice[i] = 1
		}
	case "unread":
		slice = make([]byte, number()<<20)
		for i := 0; i < len(slice); i += 4096 {
			sum += int(slice[i])
		}
	case "sparse":
		all := make([]*page, number()<<20/8192)
		for i := range all {
			all[i] = new(page)
			all[i][0] = 1
		}
		for i := 0; i < len(all); i += 200 {
			pages = append(pages, all[i])
		}
	case "large":
		slices = make([][]byte, number())
		for i := range slices {
			slices[i] = make([]byte, 40<<10+1)
			for j := range slices[i] {
				slices[i][j] = 1
			}
		}
	case "malloc":
		malloc(number())
	}
}

func written(mib int) {
	slice = make([]byte, mib<<20)
	for i := range slice {
		slice[i] = 1
	}
}

// memoryClasses are the runtime's metrics of memory.
func memoryClasses() (found []metrics.Sample) {
	for _, each := range metrics.All() {
		if strings.HasPrefix(each.Name, "/memory/classes/") {
			found = append(found, metrics.Sample{Name: each.Name})
		}
	}
	metrics.Read(found) // what it allocates the first time
	return found
}

// tell writes MemStats and the metrics without allocating anything after they were read.
func tell(classes []metrics.Sample) {
	var stats runtime.MemStats
	var room [4096]byte
	runtime.ReadMemStats(&stats)
	metrics.Read(classes)
	line := append(room[:0], '{')
	for i, each := range []struct {
		name  string
		value uint64
	}{
		{"HeapAlloc", stats.HeapAlloc},
		{"HeapInuse", stats.HeapInuse},
		{"HeapIdle", stats.HeapIdle},
		{"HeapReleased", stats.HeapReleased},
		{"StackInuse", stats.StackInuse},
		{"StackSys", stats.StackSys},
		{"MSpanInuse", stats.MSpanInuse},
		{"MSpanSys", stats.MSpanSys},
		{"MCacheInuse", stats.MCacheInuse},
		{"MCacheSys", stats.MCacheSys},
		{"BuckHashSys", stats.BuckHashSys},
		{"GCSys", stats.GCSys},
		{"OtherSys", stats.OtherSys},
		{"NextGC", stats.NextGC},
		{"NumGC", uint64(stats.NumGC)},
		{"Sys", stats.Sys},
		{"TotalAlloc", stats.TotalAlloc},
	} {
		if i > 0 {
			line = append(line, ',')
		}
		line = append(line, '"')
		line = append(line, each.name...)
		line = append(line, '"', ':')
		line = strconv.AppendUint(line, each.value, 10)
	}
	for _, each := range classes {
		line = append(line, ',', '"')
		line = append(line, each.Name...)
		line = append(line, '"', ':')
		line = strconv.AppendUint(line, each.Value.Uint64(), 10)
	}
	os.Stdout.Write(append(line, '}', '\n'))
}

func main() {
	classes := memoryClasses()
	shape()
	runtime.GC()
	if !once {
		runtime.GC()
	}
	debug.SetGCPercent(-1)             // without a goal for the heap there is none for the scavenger
	time.Sleep(200 * time.Millisecond) // the threads there will be are there
	if len(os.Args) > 3 {              // nothing may be kept by the scavenger's pace
		debug.FreeOSMemory()
	}
	tell(classes)
	// A system call that the runtime does not know of: nothing of it stirs meanwhile.
	var room [1]byte
	for {
		count, _, errno := syscall.RawSyscall(syscall.SYS_READ, 0, uintptr(unsafe.Pointer(&room[0])), 1)
		if count == 0 || errno != 0 && errno != syscall.EINTR {
			break
		}
		if count == 1 && os.Args[1] == "again" {
			written(number())
			tell(classes)
		}
		if count == 1 && os.Args[1] == "scavenged" {
			debug.SetGCPercent(100)
			runtime.GC()
		}
	}
	runtime.KeepAlive(kept)
	runtime.KeepAlive(pages)
	runtime.KeepAlive(slices)
	runtime.KeepAlive(slice)
	println(sum)
}
