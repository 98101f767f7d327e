/* SPDX-License-Identifier: GPL-2.0 */
/* Empty stand-in: BCC force-includes its own copy of this header. */
