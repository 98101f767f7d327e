// Package computes counts primes.
package computes

import "targets/advised/asked"

var Primes int

func init() {
	if asked.For("computes") {
		Work()
	}
}

// Work takes some 20 ms.
//
//go:noinline
func Work() {
	for number := 2; number < 60000; number++ {
		prime := true
		for by := 2; by*by <= number; by++ {
			if number%by == 0 {
				prime = false
				break
			}
		}
		if prime {
			Primes++
		}
	}
}
