// Package regexps compiles 300 regular expressions.
package regexps

import (
	"regexp"
	"strconv"

	"targets/advised/asked"
)

var Tables []*regexp.Regexp

func init() {
	if !asked.For("regexps") {
		return
	}
	for number := 0; number < 300; number++ {
		Tables = append(Tables, regexp.MustCompile(`^(a|b{2,9}|[c-x]+)*\d{1,`+strconv.Itoa(number%50+2)+`}$`))
	}
}
