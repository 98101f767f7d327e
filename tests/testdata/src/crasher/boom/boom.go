// Package boom cannot be initialized.
package boom

func init() { panic("boom") }
