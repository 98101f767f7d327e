// reexec starts itself again after 20 ms, as sandboxing tools do: by execve ("exec", or "thread": not by the first one), or
// as a child ("fork"). Only the copy listens. It writes "copy PID PPID" to standard error then.
package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

func again() {
	time.Sleep(20 * time.Millisecond)
	panic(syscall.Exec("/proc/self/exe", []string{os.Args[0], "listen"}, os.Environ()))
}

func main() {
	switch os.Args[1] {
	case "listen":
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			panic(err)
		}
		defer listener.Close()
		fmt.Fprintln(os.Stderr, "copy", os.Getpid(), os.Getppid())
		time.Sleep(300 * time.Millisecond)
	case "exec":
		again()
	case "thread":
		runtime.LockOSThread() // so the other goroutine is on another thread
		go again()
		select {}
	case "fork":
		time.Sleep(20 * time.Millisecond)
		command := exec.Command("/proc/self/exe", "listen")
		command.Stderr = os.Stderr
		if err := command.Run(); err != nil {
			panic(err)
		}
	}
}
