// Package sleeper takes 20 ms to initialize, and next to no CPU time.
package sleeper

import "time"

func init() { time.Sleep(20 * time.Millisecond) }
