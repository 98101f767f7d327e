// Package dialer connects to a port nobody listens on, to initialize.
package dialer

import "net"

func init() {
	if connection, err := net.Dial("tcp", "127.0.0.1:1"); err == nil {
		connection.Close()
	}
}
