// waiters keeps goroutines in every state that they can wait in, and writes what the runtime itself prints of them.
//
// At a line on standard input it writes pprof's goroutine profile (debug=2, then debug=1) to the files that its arguments
// name, and a line of JSON; between lines nothing of it runs but -queue and -churn. It exits at the end of standard input.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"io"
	"net"
	"os"
	"runtime"
	"runtime/pprof"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

var (
	count  = flag.Int("count", 100, "goroutines, about")
	text   = flag.String("text", "", "where the stacks go")
	counts = flag.String("counts", "", "where stacks and labels go")
	fill   = flag.Int("leak", 0, "goroutines that are started and never end, with each line")
	queue  = flag.Int("queue", 0, "goroutines that queue for one lock, and measure how long")
	churn  = flag.Int("churn", 0, "pairs of goroutines that hand each other a value all the time")

	spin   = flag.Int("spin", 0, "goroutines that compute, ten calls deep")
	itself = flag.Duration("itself", 0, "how often it prints all stacks, to nowhere")

	queued atomic.Int64 // ns
	handed atomic.Int64
	lock   sync.Mutex

	mutex   sync.Mutex
	rw      sync.RWMutex
	never   = make(chan int)
	full    = make(chan int)
	cond    = sync.NewCond(&sync.Mutex{})
	forever sync.WaitGroup
	pipes   [2]int
)

type waiter interface{ Wait(n int) int }

type byValue struct{ c chan int }

func (w byValue) Wait(n int) int { return n + <-w.c }

type embeds struct{ waiter }

func generic[T any](c chan T) T { return <-c }

func deep(n int) int {
	if n == 0 {
		return <-never
	}
	return deep(n-1) + 1
}

//go:noinline
func inlinedCaller(c chan int) int { return inlined(c) + 1 }

func inlined(c chan int) int { return inlinedToo(c) + 1 }

func inlinedToo(c chan int) int { return <-c }

func panics() {
	defer func() {
		<-never // in the midst of a panic
	}()
	var nothing *byValue
	nothing.Wait(1)
}

func read(fd int) {
	var b [1]byte
	syscall.Read(fd, b[:])
}

func kinds() []func() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	return []func(){
		func() { <-never },
		func() { full <- 1 },
		func() {
			select {
			case <-never:
			case full <- 2:
			}
		},
		func() { select {} },
		func() { var none chan int; <-none },
		func() { mutex.Lock() },
		func() { rw.RLock() },
		func() { rw.Lock() },
		func() { cond.L.Lock(); cond.Wait() },
		func() { forever.Wait() },
		func() { listener.Accept() },
		func() { time.Sleep(time.Hour) },
		func() { runtime.LockOSThread(); <-never },
		func() { deep(150) },
		func() { panics() },
		func() { generic(make(chan string)) },
		func() { generic(make(chan struct{ a, b int })) },
		func() { var w waiter = embeds{byValue{never}}; w.Wait(1) },
		func() { f := (&byValue{never}).Wait; f(2) },
		func() { inlinedCaller(never) },
		func() {
			pprof.Do(context.Background(), pprof.Labels("user", "alice", "path", "/a b"), func(context.Context) { <-never })
		},
		func() { pprof.Do(context.Background(), pprof.Labels("user", "bob"), func(context.Context) { <-never }) },
		func() { cWaits() },
	}
}

//go:noinline
func leak() { <-never }

func queues() {
	for {
		begin := time.Now()
		lock.Lock()
		queued.Add(int64(time.Since(begin)))
		time.Sleep(20 * time.Millisecond)
		lock.Unlock()
	}
}

//go:noinline
func spins(n int) int {
	if n > 0 {
		return spins(n-1) + 1
	}
	for {
		leaf(1000)
	}
}

//go:noinline
func leaf(n int) (sum int) {
	for i := 0; i < n; i++ {
		sum += i * i
	}
	return
}

func give(c chan int) {
	for {
		c <- 1
	}
}

func take(c chan int) {
	for {
		handed.Add(int64(<-c))
	}
}

func main() {
	flag.Parse()
	if err := syscall.Pipe(pipes[:]); err != nil {
		panic(err)
	}
	mutex.Lock()
	rw.Lock()
	forever.Add(1)
	all := kinds()
	for i := 0; i < 3; i++ {
		go read(pipes[0])
	}
	for i := 0; i < *count; i++ {
		go all[i%len(all)]()
	}
	for i := 0; i < *queue; i++ {
		go queues()
	}
	for i := 0; i < *churn; i++ {
		c := make(chan int)
		go func() { give(c) }()
		go func() { take(c) }()
	}
	for i := 0; i < *spin; i++ {
		go func() { spins(10) }()
	}
	if *itself > 0 {
		go func() {
			for range time.Tick(*itself) {
				pprof.Lookup("goroutine").WriteTo(io.Discard, 2)
			}
		}()
	}
	input := bufio.NewReader(os.Stdin)
	began := time.Now()
	for n := 1; ; n++ {
		if _, err := input.ReadString('\n'); err != nil {
			return
		}
		for i := 0; i < *fill; i++ {
			go leak()
		}
		time.Sleep(300 * time.Millisecond) // until all of them wait
		runtime.GC()                       // those that wait are told since when
		written, took := 0, map[int]time.Duration{}
		for debug, path := range map[int]string{2: *text, 1: *counts} {
			if path == "" {
				continue
			}
			file, err := os.Create(path)
			if err != nil {
				panic(err)
			}
			begin := time.Now()
			pprof.Lookup("goroutine").WriteTo(file, debug)
			took[debug] = time.Since(begin)
			file.Close()
			written++
		}
		json.NewEncoder(os.Stdout).Encode(map[string]int64{
			"line": int64(n), "written": int64(written), "goroutines": int64(runtime.NumGoroutine()),
			"elapsed_ns": int64(time.Since(began)), "queued_ns": queued.Load(), "handed": handed.Load(),
			"took_ns": int64(took[2]),
		})
	}
}
