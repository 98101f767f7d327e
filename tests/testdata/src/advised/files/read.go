// Package files reads its own executable four times.
package files

import (
	"os"

	"targets/advised/asked"
)

var Content [][]byte

func init() {
	for number := 0; asked.For("files") && number < 4; number++ {
		content, _ := os.ReadFile("/proc/self/exe")
		Content = append(Content, content)
	}
}
