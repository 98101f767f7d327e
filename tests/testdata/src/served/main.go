// served is an HTTP server that counts what it is asked: it prints its address, and for each line on its standard input
// one line of JSON with its counts and its own times.
//
// /ping answers "pong". Its query may ask for a delay (?delay=5ms), for every Nth request to be refused with 500
// (?refuse=10), and for every Nth to be cut off without an answer (?cut=10).
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"sort"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

var (
	asked   int64
	refused int64
	cut     int64

	mutex sync.Mutex
	times []time.Duration
)

func every(r *http.Request, name string, number int64) bool {
	n, _ := strconv.ParseInt(r.URL.Query().Get(name), 10, 64)
	return n > 0 && number%n == 0
}

func ping(w http.ResponseWriter, r *http.Request) {
	begin := time.Now()
	number := atomic.AddInt64(&asked, 1)
	if delay, err := time.ParseDuration(r.URL.Query().Get("delay")); err == nil {
		time.Sleep(delay)
	}
	switch {
	case every(r, "cut", number):
		atomic.AddInt64(&cut, 1)
		if connection, _, err := w.(http.Hijacker).Hijack(); err == nil {
			connection.Close()
		}
		return
	case every(r, "refuse", number):
		atomic.AddInt64(&refused, 1)
		http.Error(w, "planted", http.StatusInternalServerError)
	default:
		w.Header().Set("Content-Type", "text/plain")
		fmt.Fprint(w, "pong\n")
	}
	took := time.Since(begin)
	mutex.Lock()
	times = append(times, took)
	mutex.Unlock()
}

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	http.HandleFunc("/ping", ping)
	go http.Serve(listener, nil)
	fmt.Println(listener.Addr())
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		mutex.Lock()
		sorted := append([]time.Duration{}, times...)
		mutex.Unlock()
		sort.Slice(sorted, func(i, j int) bool { return sorted[i] < sorted[j] })
		answer := map[string]int64{
			"asked": atomic.LoadInt64(&asked), "refused": atomic.LoadInt64(&refused), "cut": atomic.LoadInt64(&cut),
		}
		if n := len(sorted); n > 0 {
			answer["p50_ns"] = int64(sorted[n/2])
			answer["p99_ns"] = int64(sorted[n*99/100])
			answer["max_ns"] = int64(sorted[n-1])
		}
		json.NewEncoder(os.Stdout).Encode(answer)
	}
}
