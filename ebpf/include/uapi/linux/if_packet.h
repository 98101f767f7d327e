/* SPDX-License-Identifier: GPL-2.0 */
/* Empty stand-in: named by the compiler library, nothing of it is used. */
