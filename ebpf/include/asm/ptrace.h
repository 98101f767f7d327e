/* SPDX-License-Identifier: GPL-2.0 */
/* Stand-in: struct pt_regs is with everything else that differs between architectures. */
#include <goabi.h>
