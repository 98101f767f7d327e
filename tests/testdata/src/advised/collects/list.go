// Package collects makes a list of 40 MiB, which the collector goes through again and again while it grows.
package collects

import "targets/advised/asked"

type node struct {
	next *node
	pad  [7]*node
}

var List *node

func init() {
	if asked.For("collects") {
		for i := 0; i < 40<<14; i++ {
			List = &node{next: List}
		}
	}
}
