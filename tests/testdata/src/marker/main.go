// marker collects over and over, with a live heap of pointers: marker MEBIBYTES SECONDS.
//
// It waits for a line on standard input before it begins. Nearly all of its time is marking, by workers.
package main

import (
	"bufio"
	"os"
	"runtime"
	"strconv"
	"time"
)

type node struct {
	left, right *node
	_           [48]byte // 64 bytes in all
}

func tree(nodes int) *node {
	if nodes == 0 {
		return nil
	}
	return &node{left: tree((nodes - 1) / 2), right: tree(nodes / 2)}
}

func main() {
	mebibytes, _ := strconv.Atoi(os.Args[1])
	seconds, _ := strconv.ParseFloat(os.Args[2], 64)
	root := tree(mebibytes << 20 / 64)
	bufio.NewReader(os.Stdin).ReadString('\n')
	for end := time.Now().Add(time.Duration(seconds * 1e9)); time.Now().Before(end); {
		runtime.GC()
	}
	runtime.KeepAlive(root)
}
