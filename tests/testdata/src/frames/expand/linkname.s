// An assembly file lets a package have functions without a body: the one in old.go is the runtime's.
