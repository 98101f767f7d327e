//go:build !go1.23

package expand

import _ "unsafe" // for linkname

//go:linkname expandFinal runtime/pprof.runtime_expandFinalInlineFrame
func expandFinal(stack []uintptr) []uintptr

// All gives the return addresses of the logical frames at a return address, and one more that is no part of them.
func All(pc uintptr) []uintptr { return append(expandFinal([]uintptr{pc}), end()) }
