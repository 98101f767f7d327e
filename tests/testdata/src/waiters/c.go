//go:build cgo

package main

// #include <unistd.h>
// static void waits(void) { for (;;) pause(); }
import "C"

func cWaits() { C.waits() }
