#include "textflag.h"

// func spin(count uint64)
TEXT ·spin(SB), NOSPLIT, $0-8
	MOVD count+0(FP), R0
again:
	SUB  $1, R0
	CBNZ R0, again
	RET
