// Package templates parses 200 templates.
package templates

import (
	"strconv"
	"text/template"

	"targets/advised/asked"
)

var Pages = map[string]*template.Template{}

func init() {
	if !asked.For("templates") {
		return
	}
	for number := 0; number < 200; number++ {
		name := strconv.Itoa(number)
		Pages[name] = template.Must(template.New(name).Parse(`{{range .Items}}{{if .Name}}{{.Name | printf "%s"}}{{else}}-{{end}}{{end}}{{with .Foot}}{{.}}{{end}}`))
	}
}
