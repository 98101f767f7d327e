// There is a file of assembly, so that functions may be declared that are linked by name.
