// Package twenty has twenty init functions, each of which takes 100 us of a CPU.
package twenty

import "time"

// Done is what ran, in order.
var Done []int

//go:noinline
func spin(which int) {
	for begin := time.Now(); time.Since(begin) < 100*time.Microsecond; {
	}
	Done = append(Done, which)
}

func init() { spin(1) }
func init() { spin(2) }
func init() { spin(3) }
func init() { spin(4) }
func init() { spin(5) }
func init() { spin(6) }
func init() { spin(7) }
func init() { spin(8) }
func init() { spin(9) }
func init() { spin(10) }
func init() { spin(11) }
func init() { spin(12) }
func init() { spin(13) }
func init() { spin(14) }
func init() { spin(15) }
func init() { spin(16) }
func init() { spin(17) }
func init() { spin(18) }
func init() { spin(19) }
func init() { spin(20) }
