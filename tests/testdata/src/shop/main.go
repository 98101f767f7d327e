// shop is an HTTP service with a regression to plant: shop -port 8080 [-allocate KiB] [-straggle 2ms] [-leak MiB] [-init 0s]
// [-collect 0] [-work 20us] [-cold 0s] [-wait 0s] [-hold MiB] [-spill MiB] [-every 1s].
//
// /ping allocates so much, works for so long, waits for so long and answers. With -straggle a goroutine keeps the world from
// being stopped for so long, each second once or as -every says; with -leak so much is kept alive each second, and with
// -spill so much memory is used more outside of the heap, as by C, of which the collector does not know. -hold is so much of
// it from the start on; -init is how long its start takes longer, and for so long as -cold says requests take ten times the
// work. /debug/pprof is net/http/pprof's.
// It ends at SIGTERM, or with -dies after so many requests.
package main

import (
	"flag"
	"fmt"
	"net"
	"net/http"
	_ "net/http/pprof"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"
)

var (
	port     = flag.Int("port", 8080, "where it listens")
	allocate = flag.Int("allocate", 64, "KiB for each request")
	straggle = flag.Duration("straggle", 0, "")
	leak     = flag.Int("leak", 0, "MiB per second")
	initial  = flag.Duration("init", 0, "")
	hold     = flag.Int("hold", 0, "MiB")
	spill    = flag.Int("spill", 0, "MiB per second")
	every    = flag.Duration("every", time.Second, "")
	collect  = flag.Int("collect", 0, "times, before it listens")
	work     = flag.Duration("work", 20*time.Microsecond, "for each request")
	cold     = flag.Duration("cold", 0, "")
	wait     = flag.Duration("wait", 0, "for each request")
	dies     = flag.Int64("dies", 0, "")

	begun  = time.Now()
	served atomic.Int64
	kept   [][]byte
	sink   atomic.Pointer[[]byte]
)

func ping(w http.ResponseWriter, r *http.Request) {
	for i := 0; i < *allocate; i++ {
		block := make([]byte, 1024)
		sink.Store(&block)
	}
	long := *work
	if time.Since(begun) < *cold {
		long *= 10
	}
	for begin := time.Now(); time.Since(begin) < long; {
	}
	time.Sleep(*wait)
	fmt.Fprintln(w, "pong")
	if count := served.Add(1); count == *dies {
		fmt.Fprintln(os.Stderr, "shop: out of stock")
		os.Exit(3)
	}
}

// spin counts down, in code that cannot be preempted.
func spin(count uint64)

func straggler() {
	const many = 1 << 20
	fastest := time.Duration(1 << 62)
	for i := 0; i < 20; i++ {
		begin := time.Now()
		spin(many)
		if took := time.Since(begin); took < fastest {
			fastest = took
		}
	}
	count := uint64(many * float64(*straggle) / float64(fastest))
	for range time.Tick(*every) {
		begun, done := make(chan bool), make(chan bool)
		go func() {
			close(begun)
			spin(count)
			close(done)
		}()
		<-begun
		runtime.GC()
		<-done
	}
}

// use makes so much memory resident that the collector knows nothing of.
func use(bytes int) {
	memory, err := syscall.Mmap(-1, 0, bytes, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for i := 0; i < bytes; i += 4096 {
		memory[i] = 1
	}
}

func spills() {
	for range time.Tick(100 * time.Millisecond) {
		use(*spill << 20 / 10)
	}
}

func leaks() {
	for range time.Tick(100 * time.Millisecond) {
		block := make([]byte, *leak<<20/10)
		for i := range block {
			block[i] = 1
		}
		kept = append(kept, block)
	}
}

func main() {
	flag.Parse()
	time.Sleep(*initial)
	if *hold > 0 {
		use(*hold << 20)
	}
	if *spill > 0 {
		go spills()
	}
	for i := 0; i < *collect; i++ {
		runtime.GC()
	}
	if *straggle > 0 {
		go straggler()
	}
	if *leak > 0 {
		go leaks()
	}
	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", *port))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	http.HandleFunc("/ping", ping)
	fmt.Fprintln(os.Stderr, http.Serve(listener, nil))
}
