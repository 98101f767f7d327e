//go:build !cgo

package main

func cWaits() { read(pipes[0]) }
