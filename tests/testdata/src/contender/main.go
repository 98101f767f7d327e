// contender lets goroutines wait for a lock and for a channel, for times that it measures, and writes what its own mutex and
// block profiles say.
//
// At a line on standard input it does so once more, writes pprof's profiles to the files that its arguments name, and
// answers with what it has measured since it began, as a line of JSON. It exits at the end of standard input.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"os"
	"runtime"
	"runtime/pprof"
	"sync"
	"time"
)

var (
	rate   = flag.Int("rate", 1, "what is sampled; 0: nothing")
	rounds = flag.Int("rounds", 20, "waits of each kind in a round")
	mutexP = flag.String("mutex", "", "where the mutex profile goes")
	blockP = flag.String("block", "", "where the block profile goes")

	lock     sync.Mutex
	released time.Time // when the wait of the other ended: until it runs again is no part of it
	measured struct {
		Locks    int
		Locked   time.Duration // goroutines waited for the lock
		Channels int
		Received time.Duration // and for the channel
	}
)

// add counts a wait, unless the thread had lost its CPU for so long that there was nothing left to wait for.
func add(count int, sum, waited time.Duration) (int, time.Duration) {
	if waited > 0 {
		return count + 1, sum + waited
	}
	return count, sum
}

//go:noinline
func hold(taken, wanted chan bool) {
	lock.Lock()
	taken <- true
	<-wanted
	time.Sleep(3 * time.Millisecond)
	released = time.Now()
	letGo()
}

func letGo() { lock.Unlock() } // is inlined

//go:noinline
func wait(wanted chan bool) {
	wanted <- true
	began := time.Now()
	lock.Lock()
	measured.Locks, measured.Locked = add(measured.Locks, measured.Locked, released.Sub(began))
	lock.Unlock()
}

//go:noinline
func receive(c chan bool) {
	began := time.Now()
	<-c
	measured.Channels, measured.Received = add(measured.Channels, measured.Received, released.Sub(began))
}

func round() {
	for i := 0; i < *rounds; i++ {
		taken, wanted, done := make(chan bool, 1), make(chan bool, 1), make(chan bool, 1)
		go func() {
			hold(taken, wanted)
			done <- true
		}()
		<-taken
		wait(wanted)
		<-done
		c := make(chan bool)
		go func() {
			time.Sleep(2 * time.Millisecond)
			released = time.Now()
			c <- true
		}()
		receive(c)
	}
}

func main() {
	flag.Parse()
	runtime.SetMutexProfileFraction(*rate)
	runtime.SetBlockProfileRate(*rate)
	input := bufio.NewReader(os.Stdin)
	for {
		if _, err := input.ReadString('\n'); err != nil {
			return
		}
		round()
		for name, path := range map[string]string{"mutex": *mutexP, "block": *blockP} {
			if path == "" {
				continue
			}
			file, err := os.Create(path)
			if err != nil {
				panic(err)
			}
			pprof.Lookup(name).WriteTo(file, 0)
			file.Close()
		}
		json.NewEncoder(os.Stdout).Encode(measured)
	}
}
