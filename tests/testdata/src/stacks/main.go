// stacks calls main.here and main.leaf from many depths and kinds of callers: stacks ROUNDS.
//
// It waits for a line on standard input first. For each call, in order, it prints what the runtime itself says the call
// stack is: one line of JSON, the functions from the innermost outwards. At the end it stops the world once a round,
// which the runtime does on the system stack.
package main

import (
	"bufio"
	"encoding/json"
	"os"
	"runtime"
	"strconv"
)

var (
	output = bufio.NewWriter(os.Stdout)
	stack  [256]uintptr
	number int
)

// here has a frame of its own: its caller can be had from the frame records once it has made one.
//
//go:noinline
func here() int { return record() + number }

//go:noinline
func record() int {
	n := runtime.Callers(2, stack[:])
	names := make([]string, 0, n)
	frames := runtime.CallersFrames(stack[:n])
	for {
		frame, more := frames.Next()
		names = append(names, frame.Function)
		if !more {
			break
		}
	}
	json.NewEncoder(output).Encode(names)
	return n
}

// leaf never makes one. It is called right before here, by the same function.
//
//go:noinline
func leaf(n int) int { return n*3 + number }

// Callers of each kind; each does something after its calls, so that none is a tail call.

func both() int { return leaf(number) + here() }

//go:noinline
func nested(depth int) int {
	if depth == 0 {
		return both() + 1
	}
	return nested(depth-1) + 1
}

type caller interface{ call(n int) int }

type value struct{ a, b int }

//go:noinline
func (v value) call(n int) int { return v.a + both() + n }

type pointer struct{ a int }

//go:noinline
func (p *pointer) call(n int) int { return p.a + both() + n }

//go:noinline
func generic[T any](v T) (T, int) { return v, both() + 1 }

// big has a frame too large for the short form of the prologue, and makes the stack grow.
//
//go:noinline
func big(n int) int {
	var room [20000]byte
	room[n] = 1
	return both() + int(room[n/2])
}

func round(i int) int {
	total := both() + nested(1) + nested(i*8%80)
	for _, c := range []caller{value{1, 2}, &value{3, 4}, &pointer{5}} {
		total += c.call(i)
	}
	func() {
		defer func() { total += both() }()
		total += big(i)
	}()
	_, n := generic("text")
	_, m := generic(3.5)
	done := make(chan int)
	go func() { done <- both() + 1 }()
	total += n + m + <-done
	func() {
		defer func() { recover(); total += both() }()
		panic("as asked")
	}()
	return total
}

//go:noinline
func stop() { runtime.ReadMemStats(new(runtime.MemStats)) }

func main() {
	rounds, _ := strconv.Atoi(os.Args[1])
	bufio.NewReader(os.Stdin).ReadString('\n')
	for i := 0; i < rounds; i++ {
		number += round(i) % 7
	}
	for i := 0; i < rounds; i++ {
		stop()
	}
	output.Flush()
}
