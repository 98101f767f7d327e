//go:build go1.23

package expand

// All gives the return addresses of the logical frames at a return address, and one more that is no part of them.
// runtime.CallersFrames finds those in between itself.
func All(pc uintptr) []uintptr { return []uintptr{pc, end()} }
