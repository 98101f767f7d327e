// Package burner takes 15 ms to initialize, and a CPU all that time.
package burner

import "time"

func init() {
	for begin := time.Now(); time.Since(begin) < 15*time.Millisecond; {
	}
}
