// Package asked knows the arguments.
package asked

import "os"

// For says whether one of them is ``what``.
func For(what string) bool {
	for _, each := range os.Args[1:] {
		if each == what {
			return true
		}
	}
	return false
}
