/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Which process is the target, for probes that see every process (in front of their text, not an #include, for its map).
 */

/* The target as the kernel numbers it: 0 until a thread of it has told, where only a container's number is known. */
BPF_ARRAY(target, u64, 1);

/* Entry of startTheWorldWithSema: only the target gets here. */
int seen(struct pt_regs *ctx)
{
	int zero = 0;
	u64 *tgid = target.lookup(&zero);

	count_hit(HIT_SEEN);
	if (tgid)
		*tgid = bpf_get_current_pid_tgid() >> 32;
	return 0;
}

static __always_inline u64 target_tgid(struct config *cfg)
{
	int zero = 0;
	u64 *tgid = target.lookup(&zero);

	return tgid && *tgid ? *tgid : cfg->slot[CONFIG_TGID];
}

/* Whether the target runs now. */
static __always_inline bool is_own(struct config *cfg)
{
	u64 tgid = bpf_get_current_pid_tgid() >> 32;

	return cfg && tgid && tgid == target_tgid(cfg);
}
