// service is a small HTTP service that allocates under its own load: service [-duration 60s] [-clients 4] [-count]
// [-port 8080]. It answers an order that is sent to it with the same one in capitals; who sends none gets one that it made.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

type order struct {
	ID    int
	Items []string
	Total float64
}

var (
	mutex sync.Mutex
	cache = map[int]*order{}

	served atomic.Int64
)

func handle(w http.ResponseWriter, r *http.Request) {
	var in order
	body := io.Reader(r.Body)
	if r.Method == http.MethodGet {
		made, _ := json.Marshal(some(int(served.Load())))
		body = strings.NewReader(string(made))
	}
	if err := json.NewDecoder(body).Decode(&in); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	for i := range in.Items {
		in.Items[i] = strings.ToUpper(in.Items[i])
	}
	mutex.Lock()
	cache[in.ID%20000] = &in
	mutex.Unlock()
	json.NewEncoder(w).Encode(in)
	served.Add(1)
}

func some(n int) order {
	items := make([]string, 20+n%30)
	for i := range items {
		items[i] = fmt.Sprintf("item-%d-%d", n, i)
	}
	return order{ID: n, Items: items, Total: float64(n)}
}

func client(url string, seed int) {
	for n := seed; ; n += 7 {
		body, _ := json.Marshal(some(n))
		answer, err := http.Post(url, "application/json", strings.NewReader(string(body)))
		if err != nil {
			continue
		}
		io.Copy(io.Discard, answer.Body)
		answer.Body.Close()
	}
}

func main() {
	duration := flag.Duration("duration", time.Minute, "how long to run")
	clients := flag.Int("clients", 4, "goroutines that send requests")
	port := flag.Int("port", 0, "where it listens; 0: somewhere")
	count := flag.Bool("count", false, "for each line of input print how many requests were served")
	flag.Parse()
	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", *port))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	go http.Serve(listener, http.HandlerFunc(handle))
	for i := 0; i < *clients; i++ {
		go client("http://"+listener.Addr().String(), i)
	}
	fmt.Println("serving on", listener.Addr())
	if *count {
		for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
			fmt.Println(served.Load())
		}
	}
	time.Sleep(*duration)
}
