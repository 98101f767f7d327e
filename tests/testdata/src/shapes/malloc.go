package main

/*
#include <stdlib.h>
#include <string.h>

static void fill(size_t blocks) {
	for (size_t i = 0; i < blocks; i++) {
		void *block = malloc(1000);
		if (block != NULL) {
			memset(block, 1, 1000);
		}
	}
}
*/
import "C"

import "runtime"

func init() {
	runtime.LockOSThread() // main's blocks are those of the main thread, in its heap
	malloc = func(mib int) {
		blocks := mib << 20 / 1008
		C.fill(C.size_t(blocks / 2))
		done := make(chan bool)
		for i := 0; i < 4; i++ {
			go func() {
				runtime.LockOSThread() // and stays: its blocks lie in an arena of its thread
				C.fill(C.size_t(blocks / 8))
				done <- true
				<-waiting
			}()
		}
		for i := 0; i < 4; i++ {
			<-done
		}
	}
}
