// shop is an HTTP service with a regression to plant: shop -port 8080 [-allocate KiB] [-straggle 2ms] [-leak MiB] [-init 0s]
// [-work 20us] [-cold 0s] [-wait 0s].
//
// /ping allocates so much, works for so long, waits for so long and answers. With -straggle a goroutine keeps the world from
// being stopped for so long, each second once; with -leak so much is kept alive each second; -init is how long its start
// takes longer, and for so long as -cold says requests take ten times the work. /debug/pprof is net/http/pprof's.
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
	"time"
)

var (
	port     = flag.Int("port", 8080, "where it listens")
	allocate = flag.Int("allocate", 64, "KiB for each request")
	straggle = flag.Duration("straggle", 0, "")
	leak     = flag.Int("leak", 0, "MiB per second")
	initial  = flag.Duration("init", 0, "")
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

func straggler() {
	words := make([]byte, 64<<20)
	for range time.Tick(time.Second) {
		done := make(chan bool)
		go func() { // the compiler makes one call of this loop, of code that cannot be preempted
			for begin := time.Now(); time.Since(begin) < *straggle*2; {
				for i := range words {
					words[i] = 0
				}
			}
			close(done)
		}()
		runtime.GC()
		<-done
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
