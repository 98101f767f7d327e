//go:build cgo

package main

// static int half(int n) { return n / 2; }
import "C"

func init() { half = func(n int) int { return int(C.half(C.int(n))) } }

var half func(int) int
