// Package names looks a name up at a server that never answers, for 40 ms.
package names

import (
	"context"
	"net"
	"time"

	"targets/advised/asked"
)

func init() {
	if asked.For("names") {
		within, cancel := context.WithTimeout(context.Background(), 40*time.Millisecond)
		defer cancel()
		resolver := net.Resolver{PreferGo: true, Dial: func(of context.Context, _, _ string) (net.Conn, error) {
			<-of.Done()
			return nil, of.Err()
		}}
		resolver.LookupIPAddr(within, "name.invalid")
	}
}
