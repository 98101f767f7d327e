/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The calls that processes make on files: one event each, with what the file is called.
 *
 * A name is told by its nodes, each once as long as it is remembered: a node is a directory's entry, known by a number made
 * of what it is (inode, device, mount) and of where it is (its name, the directory). A walk leads from a file up to the
 * first directory that is known. Where there is no file (a failed open, a stat) the text that the call was given is told
 * instead, as a node below the directory that it begins at. It is read when the call ends: at its beginning the page that
 * it is in may not be there.
 */

#define MOST_STEPS 224 /* events of a walk: beyond them a name is cut off */
#define NAME_BYTES 24  /* of a name in one event */
#define TEXT_BYTES 4096
#define PATH_BYTES                                                                                                         \
	(TEXT_BYTES + 1) /* more than a path may have: one that is longer is told from one that is just as long */
#define FROM_HERE (-100) /* AT_FDCWD */
#define ANONYMOUS 0x20	 /* MAP_ANONYMOUS */
#define BAD_ADDRESS (-14)
#define ARGUMENT(regs, NUMBER) word_at((u64) & SYSCALL_ARG##NUMBER((struct pt_regs *)(regs)), 0)
#define CLONE 0x40049409	/* FICLONE */
#define CLONE_RANGE 0x4020940d	/* FICLONERANGE */
#define DEDUPE_RANGE 0xc0189436 /* FIDEDUPERANGE */
#define COMPATIBLE 2		/* TS_COMPAT: a system call of a 32-bit program, with numbers of its own */

/* What a thread is at. */
struct call {
	u64 begin_ns; /* 0: in no call */
	u64 file;
	u64 fault_ns; /* when the last page fault began; 0: none that matters */
	u64 fault_file;
	u32 number;
	u32 page_ins; /* pages that were read into the page cache meanwhile */
	u32 flags;
	u32 fault_page_ins;
};

/* A request: of io_uring, or to a FUSE server. */
struct request {
	u64 begin_ns;
	u64 file; /* by the name that it has; 0: none */
	u64 id;	  /* the thread that made it, as bpf_get_current_pid_tgid() has it */
	u64 call_ns;
	u64 what;
};

struct place {
	u64 inode;
	u64 device;
};

struct fuse_key {
	u64 connection;
	u64 unique;
};

/*
 * What an entry was when it was walked to last on this CPU, and its node. As long as all of that is as it was it is the
 * same node: whoever reads or writes a file again and again need not walk again.
 */
struct recent {
	u64 dentry, mnt;
	u64 is_hashed, parent, hash;
	u64 inode, number, mode;
	u64 node;
};

/* A dentry from d_hash.pprev on, where its fields lie in this order (CONFIG_DENTRY_ORDERED). */
struct dentry_part {
	u64 pprev, parent, hash, name, inode;
};

struct path_part {
	u64 mnt, dentry;
};

/* A fdtable from max_fds on. */
struct table_part {
	u32 most, unused;
	u64 files;
};

/* How far a walk is, and what is told of the node that it came from. The verifier knows nothing of it: hence volatile. */
struct walk {
	volatile u64 dentry, mnt;
	volatile u64 up, up_mnt; /* where that is mounted, if it is a root */
	volatile u64 node, inode, device, mode;
	volatile u64 first;
	volatile u64 given;  /* where the text is that a call was given; 0: a descriptor was */
	volatile s64 result; /* of the call */
	volatile u32 shape;
	volatile u64 named; /* whose name is being told */
	volatile u32 at, length;
	struct recent now;
	char text[TEXT_BYTES + 64];
};

#define RECENT 256

BPF_PERCPU_ARRAY(recents, struct recent, RECENT);
BPF_HASH(calls, u64, struct call, 65536);
BPF_HASH(followed, u32, u8, 65536);
BPF_ARRAY(compatible, u64,
	  1); /* calls of 32-bit programs, which are not traced: a part, by what their numbers mean elsewhere */
BPF_TABLE("lru_hash", u64, u8, known, 131072);
BPF_TABLE("lru_hash", u64, u8, stacks, 16384);
BPF_TABLE("lru_hash", struct place, u64, mapped, 16384);
BPF_TABLE("lru_hash", u64, struct request, requests, 65536);
BPF_TABLE("lru_hash", struct fuse_key, struct request, served, 16384);
BPF_PERCPU_ARRAY(walks, struct walk, 1);

static u64 (*ancestor_cgroup_id)(int level) = (void *)123; /* BPF_FUNC_get_current_ancestor_cgroup_id */

static __always_inline u64 word_at(u64 base, u64 offset)
{
	u64 value = 0;

	bpf_probe_read_kernel(&value, 8, (void *)(base + offset));
	return value;
}

static __always_inline u32 half_at(u64 base, u64 offset)
{
	u32 value = 0;

	bpf_probe_read_kernel(&value, 4, (void *)(base + offset));
	return value;
}

static __always_inline u64 mixed(u64 one, u64 other)
{
	return (one ^ other ^ one >> 32) * 0xff51afd7ed558ccdULL;
}

/* Whether a node is told for the first time; from now on it is known. */
static __always_inline bool is_new(u64 node)
{
	u8 yes = 1;

	if (known.lookup(&node))
		return false;
	known.update(&node, &yes);
	return true;
}

static __always_inline bool is_followed(struct config *cfg)
{
	u32 tgid = bpf_get_current_pid_tgid() >> 32;

	if (cfg->slot[CONFIG_CGROUP])
		return ancestor_cgroup_id(cfg->slot[CONFIG_CGROUP_LEVEL]) == cfg->slot[CONFIG_CGROUP];
	return tgid == cfg->slot[CONFIG_TGID] || followed.lookup(&tgid);
}

/* How the arguments of a system call name its file; 0 for a call that is not traced. */
static __always_inline u32 shape_of(struct config *cfg, u64 number)
{
	if (number >= SHAPE_SLOTS * 16)
		return 0;
	return cfg->slot[CONFIG_SHAPES0 + (number >> 4 & (SHAPE_SLOTS - 1))] >> (number & 15) * 4 & 15;
}

/* What a thread is at, made if need be. */
static __always_inline struct call *call_of(u64 id)
{
	struct call *call = calls.lookup(&id), nothing = {};

	if (call)
		return call;
	calls.update(&id, &nothing);
	call = calls.lookup(&id);
	if (!call)
		count_loss();
	return call;
}

/* struct file * of a descriptor of the current process, 0 for none. */
static __always_inline u64 file_of(struct config *cfg, u32 fd)
{
	u64 files = word_at(bpf_get_current_task(), cfg->slot[CONFIG_TASK_FILES]);
	struct table_part table = {};

	bpf_probe_read_kernel(&table, sizeof(table),
			      (void *)(word_at(files, cfg->slot[CONFIG_FILES_FDT]) + cfg->slot[CONFIG_FDT_MAX]));
	return files && fd < table.most ? word_at(table.files, 8ULL * fd) : 0;
}

static __always_inline void tell_file(struct walk *walk, u64 parent, u64 time_ns)
{
	emit(KIND_FILE, time_ns, walk->node, parent, walk->inode, walk->device, walk->mode);
}

/* A part of a name, and whether there was one left. */
static __always_inline bool tells_name(struct walk *walk, u64 time_ns)
{
	u32 at = walk->at;
	u64 *words = (u64 *)&walk->text[at & (TEXT_BYTES - 1)];

	if (at >= walk->length)
		return false;
	emit(KIND_NAME, time_ns, walk->named, at, words[0], words[1], words[2]);
	walk->at = at + NAME_BYTES;
	return true;
}

/* One step of a walk: a part of a name, or up to the directory that a node is in. */
static __always_inline bool steps(struct config *cfg, struct walk *walk, u64 time_ns)
{
	u64 dentry = walk->dentry, mnt = walk->mnt, up = walk->up, up_mnt = walk->up_mnt;
	u64 inode, mount, real, parent, node, number = 0, device = 0, mode = 0;
	long size;

	if (tells_name(walk, time_ns))
		return true;
	if (!dentry) {
		if (walk->node)
			tell_file(walk, 0, time_ns);
		return false;
	}
	parent = word_at(up, cfg->slot[CONFIG_DENTRY_PARENT]);
	if (up == word_at(up_mnt, cfg->slot[CONFIG_VFSMOUNT_ROOT])) {
		/* The root of a file system has its name where it is mounted. */
		real = up_mnt - cfg->slot[CONFIG_MOUNT_MNT];
		parent = word_at(real, cfg->slot[CONFIG_MOUNT_PARENT]);
		if (parent && parent != real) {
			walk->up = word_at(real, cfg->slot[CONFIG_MOUNT_MOUNTPOINT]);
			walk->up_mnt = parent + cfg->slot[CONFIG_MOUNT_MNT];
			return true;
		}
		parent = up;
	}
	mount = half_at(mnt - cfg->slot[CONFIG_MOUNT_MNT], cfg->slot[CONFIG_MOUNT_ID]);
	inode = word_at(dentry, cfg->slot[CONFIG_DENTRY_INODE]);
	number = word_at(inode, cfg->slot[CONFIG_INODE_INO]);
	device = half_at(word_at(inode, cfg->slot[CONFIG_INODE_SB]), cfg->slot[CONFIG_SB_DEV]);
	mode = half_at(inode, cfg->slot[CONFIG_INODE_MODE]) & 0xffff;
	if (parent != up && !word_at(up, cfg->slot[CONFIG_DENTRY_PPREV]))
		mode |= DELETED;
	node = mixed(mixed(number, device | mount << 32), word_at(up, cfg->slot[CONFIG_DENTRY_HASH]));
	node = mixed(node,
		     word_at(word_at(parent, cfg->slot[CONFIG_DENTRY_INODE]), cfg->slot[CONFIG_INODE_INO]) ^ mode << 40);
	if (walk->node)
		tell_file(walk, node, time_ns);
	else
		walk->first = node;
	if (!is_new(node))
		return false;
	size = bpf_probe_read_kernel_str(walk->text, 256, (void *)word_at(up, cfg->slot[CONFIG_DENTRY_NAME]));
	walk->named = walk->node = node;
	walk->at = 0;
	walk->length = size > 1 ? size - 1 : 0;
	walk->inode = number;
	walk->device = device | mount << 32;
	walk->mode = mode;
	walk->dentry = walk->up = parent == up ? 0 : parent;
	walk->mnt = up_mnt;
	return true;
}

/* A mount is told once, too: what kind of file system it is of. */
static __always_inline void tell_mount(struct config *cfg, u64 dentry, u64 mnt, u64 time_ns)
{
	u32 mount = half_at(mnt - cfg->slot[CONFIG_MOUNT_MNT], cfg->slot[CONFIG_MOUNT_ID]);
	u64 sb = word_at(dentry, cfg->slot[CONFIG_DENTRY_SB]);
	u64 name[2] = {};

	if (!is_new(mixed(mount, sb)))
		return;
	bpf_probe_read_kernel_str(name, sizeof(name),
				  (void *)word_at(word_at(sb, cfg->slot[CONFIG_SB_TYPE]), cfg->slot[CONFIG_TYPE_NAME]));
	emit(KIND_MOUNT, time_ns, mount, half_at(sb, cfg->slot[CONFIG_SB_DEV]), word_at(sb, cfg->slot[CONFIG_SB_MAGIC]),
	     name[0], name[1]);
}

/* What an entry is now. */
static __always_inline void read_recent(struct config *cfg, u64 entry, u64 mnt, struct recent *now)
{
	struct dentry_part dentry = {};

	bpf_probe_read_kernel(&dentry, sizeof(dentry), (void *)(entry + cfg->slot[CONFIG_DENTRY_PPREV]));
	now->dentry = entry;
	now->mnt = mnt;
	now->is_hashed = dentry.pprev != 0;
	now->parent = dentry.parent;
	now->hash = dentry.hash;
	now->inode = dentry.inode;
	now->number = word_at(dentry.inode, cfg->slot[CONFIG_INODE_INO]);
	now->mode = half_at(dentry.inode, cfg->slot[CONFIG_INODE_MODE]) & 0xffff;
}

static __always_inline bool is_as_it_was(const struct recent *one, const struct recent *now)
{
	return one->dentry == now->dentry && one->mnt == now->mnt && one->is_hashed == now->is_hashed &&
	       one->parent == now->parent && one->hash == now->hash && one->inode == now->inode &&
	       one->number == now->number && one->mode == now->mode;
}

/* The node of an entry on a mount; it is told if nobody knows it. */
static __always_inline u64 node_of(struct config *cfg, struct walk *walk)
{
	u64 dentry = walk->dentry, mnt = walk->mnt;
	u32 place = (dentry >> 6 ^ dentry >> 14) & (RECENT - 1);
	struct recent *recent = recents.lookup(&place);
	u64 time_ns;
	int i;

	if (!dentry || !mnt || !recent)
		return 0;
	read_recent(cfg, dentry, mnt, &walk->now);
	if (is_as_it_was(recent, &walk->now))
		return recent->node;
	time_ns = bpf_ktime_get_ns();
	tell_mount(cfg, dentry, mnt, time_ns);
	walk->dentry = walk->up = dentry;
	walk->mnt = walk->up_mnt = mnt;
	walk->node = walk->first = 0;
	walk->at = walk->length = 0;
#pragma clang loop unroll(disable)
	for (i = 0; i < MOST_STEPS; i++)
		if (!steps(cfg, walk, time_ns))
			break;
	walk->now.node = walk->first;
	/* The name of a file system's root is that of where it is mounted. */
	if (cfg->slot[CONFIG_DENTRY_ORDERED] && dentry != word_at(mnt, cfg->slot[CONFIG_VFSMOUNT_ROOT]))
		*recent = walk->now;
	return walk->first;
}

/* A walk from a file on, from nowhere if there is none. */
static __always_inline void begin_at(struct config *cfg, struct walk *walk, u64 file)
{
	struct path_part path = {};

	if (file)
		bpf_probe_read_kernel(&path, sizeof(path), (void *)(file + cfg->slot[CONFIG_FILE_MNT]));
	walk->dentry = path.dentry;
	walk->mnt = path.mnt;
	walk->given = 0;
}

static __always_inline u64 node_of_file(struct config *cfg, struct walk *walk, u64 file)
{
	begin_at(cfg, walk, file);
	return node_of(cfg, walk);
}

/*
 * The node of a text below the directory ``base``, which was read into the walk with ``size`` bytes. An empty one is for
 * the directory's descriptor itself (AT_EMPTY_PATH), or an error.
 */
static __always_inline u64 node_of_text(struct walk *walk, u64 base, long size, u64 time_ns)
{
	u64 hash = base, *words = (u64 *)walk->text, mode = TEXT;
	int i;

	if (size <= 1) /* of an empty text older kernels (6.1) do not count the zero */
		return size >= 0 ? base : 0;
	if (size > TEXT_BYTES)
		mode |= CUT;
	else
		*(u64 *)&walk->text[(size - 1) & (TEXT_BYTES - 1)] = 0;
#pragma clang loop unroll(disable)
	for (i = 0; i < TEXT_BYTES / 8; i++) {
		/* Or clang counts down instead, by a number of which verifiers of Linux 6.1 lose the bounds. */
		asm volatile("" : "+r"(i));
		if (i * 8 >= size)
			break;
		hash = mixed(hash, words[i]);
	}
	if (!is_new(hash))
		return hash;
	walk->named = walk->node = hash;
	walk->inode = walk->device = 0;
	walk->mode = mode;
	walk->at = 0;
	walk->length = size - 1;
	tell_file(walk, base, time_ns);
#pragma clang loop unroll(disable)
	for (i = 0; i <= TEXT_BYTES / NAME_BYTES; i++)
		if (!tells_name(walk, time_ns))
			break;
	return hash;
}

/* A walk from where a path begins: at the root, here, or at a directory's descriptor. */
static __always_inline void begin_at_base(struct config *cfg, struct walk *walk, int folder, char first)
{
	u64 fs = word_at(bpf_get_current_task(), cfg->slot[CONFIG_TASK_FS]);

	if (first == '/') {
		walk->dentry = word_at(fs, cfg->slot[CONFIG_FS_ROOT_DENTRY]);
		walk->mnt = word_at(fs, cfg->slot[CONFIG_FS_ROOT_MNT]);
	} else if (folder == FROM_HERE) {
		walk->dentry = word_at(fs, cfg->slot[CONFIG_FS_PWD_DENTRY]);
		walk->mnt = word_at(fs, cfg->slot[CONFIG_FS_PWD_MNT]);
	} else {
		begin_at(cfg, walk, file_of(cfg, folder));
	}
}

/* A walk for the path that a call was given, as long as its arguments are there. */
static __always_inline void begin_at_path(struct config *cfg, struct walk *walk, u32 shape, u64 regs)
{
	bool has_folder = shape == SHAPE_AT || shape == SHAPE_OPEN_AT || shape == SHAPE_EXEC_AT;
	u64 text = ARGUMENT(regs, 0), second = ARGUMENT(regs, 1);
	int folder = has_folder ? (int)text : FROM_HERE;
	char first = 0;

	if (has_folder || shape == SHAPE_SECOND)
		text = second;
	if (shape == SHAPE_SECOND_AT) {
		text = ARGUMENT(regs, 2);
		folder = second;
	}
	bpf_probe_read_user(&first, 1, (void *)text);
	begin_at_base(cfg, walk, folder, first);
	walk->given = text;
}

/* The node that a walk begins at, or that of the text which it was begun for. */
static __always_inline u64 node_of_path(struct config *cfg, struct walk *walk, u64 time_ns)
{
	u64 node = node_of(cfg, walk), text = walk->given;
	long size;

	if (!text)
		return node;
	size = bpf_probe_read_user_str(walk->text, PATH_BYTES, (void *)text);
	if (size < 0 && walk->result != BAD_ADDRESS)
		count_loss();
	return node_of_text(walk, node, size, time_ns);
}

/* The node of a path that the kernel has copied. */
static __always_inline u64 node_of_name(struct config *cfg, struct walk *walk, int folder, u64 name)
{
	char first = 0;
	u64 node;

	bpf_probe_read_kernel(&first, 1, (void *)name);
	begin_at_base(cfg, walk, folder, first);
	node = node_of(cfg, walk);
	return node_of_text(walk, node, bpf_probe_read_kernel_str(walk->text, PATH_BYTES, (void *)name),
			    bpf_ktime_get_ns());
}

static __always_inline void tell_call(u64 id, u64 begin_ns, u64 end_ns, u64 what, u64 file, s64 result)
{
	emit_of((u32)id, KIND_CALL, end_ns, begin_ns, what, file, result, id >> 32);
}

#define MOST_FRAMES 63		/* a multiple of those of an event */
#define HAS_CALLER (1ULL << 63) /* a flag of a stack: gotrace.analysis.stacks */

static __always_inline u64 user_word(u64 at)
{
	u64 value = 0;

	bpf_probe_read_user(&value, sizeof(value), (void *)at);
	return value;
}

/* Where a long call came from: at its end the user's stack is still that of the call. Once it is known it is a number. */
static __always_inline void tell_stack(void *ctx, struct walk *walk, u64 regs, u64 id, u64 begin_ns, u64 time_ns)
{
	u64 *pc = (u64 *)walk->text, number = HAS_CALLER | id >> 32;
	u8 yes = 1;
	long size;
	int i;

	__builtin_memset(walk->text, 0, MOST_FRAMES * 8);
	size = bpf_get_stack(ctx, pc + 1, (MOST_FRAMES - 1) * 8, BPF_F_USER_STACK);
	if (size <= 0)
		return;
#ifdef TASK_REGISTERS
	pc[0] = GO_UNRECORDED_CALLER(regs);
#endif
#pragma clang loop unroll(disable)
	for (i = 0; i < MOST_FRAMES; i++)
		number = mixed(number, pc[i]);
	if (!stacks.lookup(&number)) {
		size = 1 + ((u64)size >> 3); /* BPF has no signed division */
#pragma clang loop unroll(disable)
		for (i = 0; i < MOST_FRAMES; i += 3)
			if (i < size)
				emit(KIND_CALL_STACK, time_ns, number, (u64)i | (u64)size << 32 | HAS_CALLER, pc[i],
				     pc[i + 1], pc[i + 2]);
		stacks.update(&number, &yes);
	}
	emit(KIND_CALLED_FROM, time_ns, begin_ns, number, id >> 32, 0, 0);
}

/* What executes a file has its path at the beginning only. */
static __always_inline bool is_exec(u32 shape)
{
	return shape == SHAPE_EXEC || shape == SHAPE_EXEC_AT;
}

/* fcntl's F_GETLK, F_SETLK, F_SETLKW, and F_OFD_ of each. */
static __always_inline bool is_lock(u32 command)
{
	return (command >= 5 && command <= 7) || (command >= 36 && command <= 38);
}

static __always_inline bool is_clone(u32 command)
{
	return command == CLONE || command == CLONE_RANGE || command == DEDUPE_RANGE;
}

/* args: the registers, and the number of the call. */
int on_tracepoint__sys_enter(struct bpf_raw_tracepoint_args *ctx)
{
	u64 id = bpf_get_current_pid_tgid(), number = ctx->args[1], file = 0;
	u64 regs = ctx->args[0];
	struct config *cfg = settings();
	u32 shape, fd, zero = 0;
	struct place place = {};
	struct walk *walk;
	struct call *call;

	shape = cfg ? shape_of(cfg, number) : 0;
	if (!shape || !is_followed(cfg))
		return 0;
	if (cfg->slot[CONFIG_TASK_STATUS] && half_at(bpf_get_current_task(), cfg->slot[CONFIG_TASK_STATUS]) & COMPATIBLE) {
		u64 *count = compatible.lookup(&zero);

		if (count)
			__sync_fetch_and_add(count, 1);
		return 0;
	}
	if (shape == SHAPE_LOCK && !is_lock(ARGUMENT(regs, 1)))
		return 0;
	if (shape == SHAPE_CLONE && !is_clone(ARGUMENT(regs, 1)))
		return 0;
	count_hit(HIT_ON_TRACEPOINT__SYS_ENTER);
	call = call_of(id);
	walk = walks.lookup(&zero);
	if (!call || !walk)
		return 0;
	call->begin_ns = call->fault_ns = 0;
	if (shape == SHAPE_MAP && ARGUMENT(regs, 3) & ANONYMOUS)
		return 0;
	call->file = call->flags = call->page_ins = 0;
	call->number = number;
	if (shape <= SHAPE_CLONE) {
		fd = shape == SHAPE_SOURCE ? ARGUMENT(regs, 1) : shape == SHAPE_MAP ? ARGUMENT(regs, 4) : ARGUMENT(regs, 0);
		file = file_of(cfg, fd);
		walk->shape = shape;
		call->file = node_of_file(cfg, walk, file);
		if (file && half_at(file, cfg->slot[CONFIG_FILE_FLAGS]) & cfg->slot[CONFIG_O_DIRECT])
			call->flags |= DIRECT;
		if (file && walk->shape == SHAPE_MAP) {
			u64 inode = word_at(file, cfg->slot[CONFIG_FILE_INODE]), node = call->file;

			place.inode = word_at(inode, cfg->slot[CONFIG_INODE_INO]);
			place.device = half_at(word_at(inode, cfg->slot[CONFIG_INODE_SB]), cfg->slot[CONFIG_SB_DEV]);
			mapped.update(&place, &node);
		}
	}
	call->begin_ns = bpf_ktime_get_ns(); /* last: what was done here is no part of the call */
	return 0;
}

/* args: the registers, in which the arguments still are, and the result. */
int on_tracepoint__sys_exit(struct bpf_raw_tracepoint_args *ctx)
{
	u64 id = bpf_get_current_pid_tgid(), time_ns, begin_ns;
	u64 regs = ctx->args[0];
	struct call *call = calls.lookup(&id);
	long result = ctx->args[1];
	struct walk *walk;
	struct config *cfg;
	u32 shape, zero = 0;

	if (!call || !call->begin_ns)
		return 0;
	time_ns = bpf_ktime_get_ns();
	begin_ns = call->begin_ns;
	call->begin_ns = 0;
	cfg = settings();
	walk = walks.lookup(&zero);
	if (!cfg || !walk)
		return 0;
	count_hit(HIT_ON_TRACEPOINT__SYS_EXIT);
	walk->result = result;
	shape = shape_of(cfg, call->number);
	if (shape >= SHAPE_PATH && shape <= SHAPE_RETURNS && !(is_exec(shape) && result >= 0)) {
		if (shape < SHAPE_OPEN || (shape < SHAPE_RETURNS && result < 0))
			begin_at_path(cfg, walk, shape, regs);
		else
			begin_at(cfg, walk, result < 0 ? 0 : file_of(cfg, result));
		call->file = node_of_path(cfg, walk, time_ns);
	}
	if (time_ns - begin_ns >= LONG_NS)
		tell_stack(ctx, walk, regs, id, begin_ns, time_ns);
	tell_call(id, begin_ns, time_ns, call->number | (u64)call->flags << 16 | (u64)call->page_ins << 32, call->file,
		  walk->result);
	return 0;
}

/* args: the task, its number before, and what it executes: for a script, still that. */
int on_tracepoint__sched_process_exec(struct bpf_raw_tracepoint_args *ctx)
{
	u64 id = bpf_get_current_pid_tgid();
	struct call *call = calls.lookup(&id);
	struct config *cfg = settings();
	struct walk *walk;
	u32 zero = 0;

	walk = walks.lookup(&zero);
	if (!call || !call->begin_ns || !cfg || !walk)
		return 0;
	count_hit(HIT_ON_TRACEPOINT__SCHED_PROCESS_EXEC);
	call->file = node_of_name(cfg, walk, FROM_HERE, word_at(ctx->args[2], cfg->slot[CONFIG_BINPRM_FILENAME]));
	return 0;
}

/* args: who forks, and the new task. */
int on_tracepoint__sched_process_fork(struct bpf_raw_tracepoint_args *ctx)
{
	struct config *cfg = settings();
	u32 tid, tgid;
	u8 yes = 1;

	if (!cfg || cfg->slot[CONFIG_CGROUP] || !is_followed(cfg))
		return 0;
	count_hit(HIT_ON_TRACEPOINT__SCHED_PROCESS_FORK);
	tid = half_at(ctx->args[1], cfg->slot[CONFIG_TASK_PID]);
	tgid = half_at(ctx->args[1], cfg->slot[CONFIG_TASK_TGID]);
	if (tid == tgid && followed.update(&tgid, &yes))
		count_loss();
	return 0;
}

/* args: the task. Its number may be given to somebody else. */
int on_tracepoint__sched_process_free(struct bpf_raw_tracepoint_args *ctx)
{
	struct config *cfg = settings();
	u32 tid, tgid;
	u64 id;

	if (!cfg)
		return 0;
	tid = half_at(ctx->args[0], cfg->slot[CONFIG_TASK_PID]);
	tgid = half_at(ctx->args[0], cfg->slot[CONFIG_TASK_TGID]);
	id = (u64)tgid << 32 | tid;
	if (!calls.delete(&id))
		count_hit(HIT_ON_TRACEPOINT__SCHED_PROCESS_FREE);
	if (tid == tgid)
		followed.delete(&tgid);
	return 0;
}

/* A thread reads pages into the page cache: in a call, or in a page fault. */
int on_trace_event__filemap__mm_filemap_add_to_page_cache(void *ctx)
{
	u64 id = bpf_get_current_pid_tgid();
	struct call *call = calls.lookup(&id);
	struct config *cfg;
	u64 offset, word = 0;
	u32 pages = 1;

	if (!call || (!call->begin_ns && !call->fault_ns))
		return 0;
	cfg = settings();
	if (!cfg)
		return 0;
	count_hit(HIT_ON_TRACE_EVENT__FILEMAP__MM_FILEMAP_ADD_TO_PAGE_CACHE);
	offset = cfg->slot[CONFIG_PAGE_ORDER];
	if (offset) {
		bpf_probe_read_kernel(&word, 8, ctx + (offset & 0x1f8));
		pages = 1 << (word >> 8 * (offset & 7) & 15);
	}
	call->page_ins += pages;
	call->fault_page_ins += pages;
	return 0;
}

/* A page fault of a thread begins; it is told if pages of a file have to be read for it. */
int on_software_event__page_faults(struct perf_event_context *ctx)
{
	u64 id = bpf_get_current_pid_tgid();
	struct config *cfg = settings();
	struct call *call;

	if (!cfg || !is_followed(cfg))
		return 0;
	call = call_of(id);
	if (!call)
		return 0;
	count_hit(HIT_ON_SOFTWARE_EVENT__PAGE_FAULTS);
	call->fault_file = call->fault_page_ins = 0;
	call->fault_ns = bpf_ktime_get_ns();
	return 0;
}

/* What a tracepoint of filemap has of a fault that is not served from the page cache. */
struct filemap_fault {
	u64 common;
	u64 inode;
	u32 device;
};

/* The node of the file that the process executes, if it is this one: execve has mapped it. */
static __always_inline u64 node_of_program(const struct place *place)
{
	struct config *cfg = settings();
	u64 file, inode;
	struct walk *walk;
	u32 zero = 0;

	walk = walks.lookup(&zero);
	if (!cfg || !walk || !cfg->slot[CONFIG_MM_EXE])
		return 0;
	file = word_at(word_at(bpf_get_current_task(), cfg->slot[CONFIG_TASK_MM]), cfg->slot[CONFIG_MM_EXE]);
	inode = word_at(file, cfg->slot[CONFIG_FILE_INODE]);
	if (!file || word_at(inode, cfg->slot[CONFIG_INODE_INO]) != place->inode ||
	    half_at(word_at(inode, cfg->slot[CONFIG_INODE_SB]), cfg->slot[CONFIG_SB_DEV]) != place->device)
		return 0;
	return node_of_file(cfg, walk, file);
}

int on_trace_event__filemap__mm_filemap_fault(struct filemap_fault *ctx)
{
	u64 id = bpf_get_current_pid_tgid(), time_ns = bpf_ktime_get_ns(), exe, *node;
	struct place place = {.inode = ctx->inode, .device = ctx->device};
	struct call *call = calls.lookup(&id);

	if (!call || !call->fault_ns)
		return 0;
	count_hit(HIT_ON_TRACE_EVENT__FILEMAP__MM_FILEMAP_FAULT);
	node = mapped.lookup(&place);
	if (node) {
		call->fault_file = *node;
		return 0;
	}
	call->fault_file = node_of_program(&place);
	if (call->fault_file) {
		exe = call->fault_file;
		mapped.update(&place, &exe);
		return 0;
	}
	/* Mapped before it was traced, or by execve: who reads this knows the mappings. */
	call->fault_file = mixed(place.inode, place.device);
	if (is_new(call->fault_file))
		emit(KIND_FILE, time_ns, call->fault_file, 0, place.inode, place.device, MAPPED);
	return 0;
}

int on_software_event__page_faults_maj(struct perf_event_context *ctx)
{
	u64 id = bpf_get_current_pid_tgid(), time_ns = bpf_ktime_get_ns();
	struct call *call = calls.lookup(&id);

	if (!call || !call->fault_ns)
		return 0;
	count_hit(HIT_ON_SOFTWARE_EVENT__PAGE_FAULTS_MAJ);
	if (call->fault_file)
		tell_call(id, call->fault_ns, time_ns,
			  (call->begin_ns ? FAULT_IN_CALL : PAGE_FAULT) | (u64)call->fault_page_ins << 32, call->fault_file,
			  0);
	call->fault_ns = 0;
	return 0;
}

struct submitted {
	u64 common;
	u64 ring;
	u64 request;
	u64 user_data;
	u8 operation;
};

struct completed {
	u64 common;
	u64 ring;
	u64 request;
	u64 user_data;
	s32 result;
};

/* The file that a request of io_uring names by a path or a descriptor, which nothing has any more when it completes. */
static __always_inline u64 node_of_request(struct config *cfg, struct walk *walk, u64 request, u8 operation)
{
	u64 named = 0;
	int i;

	for (i = 0; i < NAMED; i++)
		if ((cfg->slot[CONFIG_NAMED0 + i] & 0xffff) == operation + 1)
			named = cfg->slot[CONFIG_NAMED0 + i];
	if (operation == URING_CLOSE && cfg->slot[CONFIG_CLOSE_FD]) {
		named = word_at(request, cfg->slot[CONFIG_CLOSE_FD]); /* and a slot of the ring, if that is not 0 */
		return named >> 32 ? 0 : node_of_file(cfg, walk, file_of(cfg, named));
	}
	if (!named)
		return 0;
	return node_of_name(cfg, walk, (int)half_at(request, named >> 16 & 0xffff),
			    word_at(word_at(request, named >> 32), cfg->slot[CONFIG_FILENAME_NAME]));
}

/* io_uring: submitted by a thread of the process, or by one of the kernel's that polls for it. */
int on_trace_event__io_uring__io_uring_submit_req(struct submitted *ctx)
{
	struct request request = {.id = bpf_get_current_pid_tgid(), .what = IO_URING + ctx->operation};
	u64 key = ctx->request;
	struct config *cfg = settings();
	struct walk *walk;
	u32 zero = 0;

	if (!cfg || !is_followed(cfg))
		return 0;
	count_hit(HIT_ON_TRACE_EVENT__IO_URING__IO_URING_SUBMIT_REQ);
	walk = walks.lookup(&zero);
	if (walk)
		request.file = node_of_request(cfg, walk, key, ctx->operation);
	request.begin_ns = bpf_ktime_get_ns();
	requests.update(&key, &request);
	return 0;
}

/* Its file is known by now, as it was not before. A request may complete many times: each counts from the one before. */
int on_trace_event__io_uring__io_uring_complete(struct completed *ctx)
{
	u64 time_ns = bpf_ktime_get_ns(), key = ctx->request, file, node;
	struct request *request = requests.lookup(&key);
	struct config *cfg = settings();
	s64 result = ctx->result;
	struct walk *walk;
	u32 zero = 0;

	if (!request || !request->begin_ns || !cfg)
		return 0;
	walk = walks.lookup(&zero);
	if (!walk)
		return 0;
	count_hit(HIT_ON_TRACE_EVENT__IO_URING__IO_URING_COMPLETE);
	file = word_at(key, cfg->slot[CONFIG_REQUEST_FILE]);
	node = request->file ?: node_of_file(cfg, walk, file);
	tell_call(request->id, request->begin_ns, time_ns, request->what, node, result);
	request->begin_ns = time_ns;
	return 0;
}

struct fuse_sent {
	u64 common;
	u32 connection;
	u32 unused;
	u64 unique;
	u32 operation;
};

struct fuse_ended {
	u64 common;
	u32 connection;
	u32 unused;
	u64 unique;
};

/* A request goes to a FUSE server, on behalf of a call. */
int on_trace_event__fuse__fuse_request_send(struct fuse_sent *ctx)
{
	struct fuse_key key = {.connection = ctx->connection, .unique = ctx->unique};
	struct request request = {.id = bpf_get_current_pid_tgid(), .what = ctx->operation};
	struct call *call = calls.lookup(&request.id);

	if (!call || (!call->begin_ns && !call->fault_ns))
		return 0;
	count_hit(HIT_ON_TRACE_EVENT__FUSE__FUSE_REQUEST_SEND);
	request.call_ns = call->fault_ns ? call->fault_ns : call->begin_ns;
	request.begin_ns = bpf_ktime_get_ns();
	served.update(&key, &request);
	return 0;
}

int on_trace_event__fuse__fuse_request_end(struct fuse_ended *ctx)
{
	struct fuse_key key = {.connection = ctx->connection, .unique = ctx->unique};
	u64 time_ns = bpf_ktime_get_ns();
	struct request *request = served.lookup(&key);

	if (!request)
		return 0;
	count_hit(HIT_ON_TRACE_EVENT__FUSE__FUSE_REQUEST_END);
	emit_of((u32)request->id, KIND_SERVED, time_ns, request->begin_ns, request->what, request->call_ns, key.connection,
		request->id >> 32);
	served.delete(&key);
	return 0;
}
