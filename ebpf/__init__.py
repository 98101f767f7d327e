"""The probes' C text and the stand-in kernel headers: data, read by `gotrace.kernel.compiler`."""
