#include "textflag.h"

// func spin(count uint64)
TEXT ·spin(SB), NOSPLIT, $0-8
	MOVQ count+0(FP), CX
again:
	DECQ CX
	JNZ  again
	RET
