/* SPDX-License-Identifier: GPL-2.0 */

int own_call(struct pt_regs *ctx)
{
	count_hit(HIT_OWN_CALL);
	bpf_trace_printk("a test of gotrace\n");
	return 0;
}

/* Reports itself: the kernel does not run it again within itself. */
int on_tracepoint__bpf_trace_printk(void *ctx)
{
	count_hit(HIT_ON_TRACEPOINT__BPF_TRACE_PRINTK);
	bpf_trace_printk("a test of gotrace\n");
	return 0;
}
