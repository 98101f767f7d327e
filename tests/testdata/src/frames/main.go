// frames says what its own runtime makes of program counters: frames < PCS.
//
// The first line of its input is the link-time address of main.anchor, the others are link-time program counters, all in
// hexadecimal. For each it prints one line of JSON: the logical frames there, innermost first, as [function, file, line].
package main

import (
	"bufio"
	"encoding/json"
	"os"
	"reflect"
	"runtime"
	"sort"
	"strconv"
	"strings"
	"text/template"

	"targets/frames/expand"
)

type frame [3]interface{}

// Something of each kind the compiler names in its own way: generics, methods behind pointers and interfaces, closures,
// calls inlined several levels deep.

type number interface{ ~int | ~float64 }

func largest[T number](values ...T) T {
	out := values[0]
	for _, value := range values {
		out = larger(out, value)
	}
	return out
}

func larger[T number](a, b T) T {
	if a > b {
		return a
	}
	return b
}

type pair[K comparable, V any] struct {
	key   K
	value V
}

func (p *pair[K, V]) set(key K, value V) { p.key, p.value = key, value }

func (p pair[K, V]) get() (K, V) { return p.key, p.value }

type shape interface{ area() int }

type square struct{ side int }

func (s square) area() int { return twice(s.side) * s.side / 2 }

func twice(n int) int { return add(n, n) }

func add(a, b int) int { return a + b }

func work(words []string) string {
	var shapes []shape
	for i := range words {
		shapes = append(shapes, square{largest(i, len(words[i]), twice(i))})
	}
	sort.Slice(shapes, func(i, j int) bool { return shapes[i].area() > shapes[j].area() })
	p := &pair[string, float64]{}
	p.set(strings.Join(words, "-"), largest(1.5, float64(shapes[0].area())))
	key, value := p.get()
	out := &strings.Builder{}
	template.Must(template.New("t").Parse("{{.}}\n")).Execute(out, key+strconv.FormatFloat(value, 'g', -1, 64))
	return out.String()
}

//go:noinline
func anchor() string { return work(os.Args) }

func main() {
	input := bufio.NewScanner(os.Stdin)
	output := bufio.NewWriter(os.Stdout)
	defer output.Flush()
	encoder := json.NewEncoder(output)
	bias := uintptr(0)
	for first := true; input.Scan(); first = false {
		address, err := strconv.ParseUint(input.Text(), 16, 64)
		if err != nil {
			panic(err)
		}
		if first {
			bias = reflect.ValueOf(anchor).Pointer() - uintptr(address)
			continue
		}
		// Frames are looked up by return addresses, which are one further.
		encoder.Encode(logical(uintptr(address) + bias + 1))
	}
	if bias == 1 {
		os.Stderr.WriteString(anchor())
	}
}

func logical(pc uintptr) []frame {
	out := []frame{}
	frames := runtime.CallersFrames(expand.All(pc))
	for {
		next, more := frames.Next()
		if !more {
			return out
		}
		out = append(out, frame{next.Function, next.File, next.Line})
	}
}
