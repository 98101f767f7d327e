// execer collects some times, tells how often on standard output, and executes another program or exits.
//
//	execer [-cycles N] [-exit CODE]                     exits with CODE
//	execer [-cycles N] [-thread] PROGRAM [ARGUMENT...]  executes it, from another than its first thread with -thread
//
// With -wait it waits for a line on its input first; with -log FILE its standard error goes there from then on.
//
// Should an execve fail it says so and exits with 9.
package main

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"syscall"
)

var sink []byte

func init() { runtime.LockOSThread() } // main runs on the first thread

func execute() {
	fmt.Println(syscall.Exec(flag.Arg(0), flag.Args(), os.Environ()))
	os.Exit(9)
}

func main() {
	cycles := flag.Int("cycles", 10, "how often to collect")
	thread := flag.Bool("thread", false, "execute from another thread")
	code := flag.Int("exit", 0, "what to exit with")
	wait := flag.Bool("wait", false, "wait for a line on standard input")
	log := flag.String("log", "", "where standard error goes")
	flag.Parse()
	if *log != "" {
		file, err := os.Create(*log)
		if err == nil {
			err = syscall.Dup3(int(file.Fd()), 2, 0)
		}
		if err != nil {
			panic(err)
		}
	}
	if *wait {
		os.Stdin.Read(make([]byte, 1))
	}
	for i := 0; i < *cycles; i++ {
		sink = make([]byte, 1<<16)
		runtime.GC()
	}
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	fmt.Println("collected", stats.NumGC)
	if flag.NArg() == 0 {
		os.Exit(*code)
	}
	if *thread {
		go func() {
			runtime.LockOSThread()
			execute()
		}()
		select {}
	}
	execute()
}
