// SPDX-License-Identifier: Apache-2.0
// A FUSE server that takes its time, and keeps a log: 138 ms to open a file of the folder "opening", 5 ms to read one of
// "reading", 20 ms to sync one of "syncing". It speaks to /dev/fuse itself.
//
//	slowfs MOUNTPOINT [PERCENT]
//
// It prints "mounted", and at the end of its standard input unmounts and prints its log: a line for each kind of request
// and folder, with how many there were and how long they took from being read to their answer. With a percentage it takes
// so much of these times.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define FILES 32
#define SIZE (1 << 20)
#define MOST 1000 // of a kind that are remembered

static const char *const folders[] = {"opening", "reading", "syncing", "other"};
#define FOLDERS (sizeof(folders) / sizeof(*folders))

static char request[1 << 18], data[1 << 18];
static uint64_t answered;
static int device;
static unsigned percent = 100;
static struct {
	unsigned count;
	uint64_t ns[MOST];
} log_of[FOLDERS + 1][64];

static uint64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000ull + time.tv_nsec;
}

static void answer(struct fuse_in_header *in, int error, const void *with, size_t size)
{
	struct fuse_out_header out = {.len = sizeof(out) + size, .error = error, .unique = in->unique};
	struct iovec parts[] = {{&out, sizeof(out)}, {(void *)with, size}};

	answered = now();
	if (writev(device, parts, 2) < 0 && errno != ENOENT)
		perror("answer");
}

// Numbers: the root is 1, folders are 2 and more, the files of folder f are 100 * (f + 1) and more.
static unsigned folder_of(uint64_t node)
{
	return node >= 100 ? node / 100 - 1 : node >= 2 ? node - 2 : FOLDERS;
}

static void describe(uint64_t node, struct fuse_attr *about)
{
	memset(about, 0, sizeof(*about));
	about->ino = node;
	about->mode = node >= 100 ? S_IFREG | 0666 : S_IFDIR | 0777;
	about->size = node >= 100 ? SIZE : 4096;
	about->nlink = 1;
	about->blksize = 4096;
}

static uint64_t looked_up(uint64_t parent, const char *name)
{
	if (parent == 1)
		for (unsigned i = 0; i < FOLDERS; i++)
			if (!strcmp(name, folders[i]))
				return 2 + i;
	if (parent > 1 && parent < 100 && name[0] >= '0' && name[0] <= '9' && atoi(name) < FILES)
		return 100 * (parent - 1) + atoi(name);
	return 0;
}

static void take(unsigned milliseconds)
{
	struct timespec time = {.tv_nsec = milliseconds * 10000 * percent};

	nanosleep(&time, NULL);
}

static void serve(void)
{
	struct fuse_in_header *in = (void *)request;
	void *about = request + sizeof(*in);
	unsigned folder = folder_of(in->nodeid);
	uint64_t begin = now();

	switch (in->opcode) {
	case FUSE_INIT: {
		struct fuse_init_out out = {
			.major = FUSE_KERNEL_VERSION, .minor = 31, .max_write = 1 << 17, .max_readahead = 0};

		answer(in, 0, &out, sizeof(out));
		break;
	}
	case FUSE_LOOKUP: {
		struct fuse_entry_out out = {.nodeid = looked_up(in->nodeid, about)};

		describe(out.nodeid, &out.attr);
		answer(in, out.nodeid ? 0 : -ENOENT, &out, out.nodeid ? sizeof(out) : 0);
		break;
	}
	case FUSE_GETATTR: {
		struct fuse_attr_out out = {0};

		describe(in->nodeid, &out.attr);
		answer(in, 0, &out, sizeof(out));
		break;
	}
	case FUSE_SETATTR: {
		struct fuse_attr_out out = {0};

		describe(in->nodeid, &out.attr);
		answer(in, 0, &out, sizeof(out));
		break;
	}
	case FUSE_OPEN:
	case FUSE_OPENDIR: {
		struct fuse_open_out out = {.fh = 1};

		if (in->opcode == FUSE_OPEN && folder == 0)
			take(138);
		answer(in, 0, &out, sizeof(out));
		break;
	}
	case FUSE_READ: {
		struct fuse_read_in *read_in = about;

		if (folder == 1)
			take(5);
		answer(in, 0, data, read_in->size < sizeof(data) ? read_in->size : sizeof(data));
		break;
	}
	case FUSE_WRITE: {
		struct fuse_write_out out = {.size = ((struct fuse_write_in *)about)->size};

		answer(in, 0, &out, sizeof(out));
		break;
	}
	case FUSE_FSYNC:
		if (folder == 2)
			take(20);
		answer(in, 0, NULL, 0);
		break;
	case FUSE_FLUSH:
	case FUSE_RELEASE:
	case FUSE_RELEASEDIR:
	case FUSE_READDIR:
	case FUSE_DESTROY:
		answer(in, 0, NULL, 0);
		break;
	case FUSE_FORGET:
	case FUSE_BATCH_FORGET:
	case FUSE_INTERRUPT:
		return;
	default:
		answer(in, -ENOSYS, NULL, 0);
	}
	if (in->opcode < 64) {
		unsigned *count = &log_of[folder][in->opcode].count;

		if (*count < MOST)
			log_of[folder][in->opcode].ns[*count] = answered - begin;
		++*count;
	}
}

int main(int count, char **arguments)
{
	struct pollfd waits[2] = {{.fd = 0, .events = POLLIN}, {.events = POLLIN}};
	char options[100];

	if (count < 2 || count > 3)
		return 2;
	if (count == 3)
		percent = atoi(arguments[2]);
	// Where it may: what it takes to get a CPU is in nobody's log.
	sched_setscheduler(0, SCHED_FIFO, &(struct sched_param){.sched_priority = 1});
	device = waits[1].fd = open("/dev/fuse", O_RDWR);
	sprintf(options, "fd=%d,rootmode=40000,user_id=0,group_id=0", device);
	if (device < 0 || mount("slow", arguments[1], "fuse.slowfs", MS_NODEV | MS_NOSUID, options)) {
		perror("mount");
		return 1;
	}
	puts("mounted");
	fflush(stdout);
	for (;;) {
		poll(waits, 2, -1);
		if (waits[1].revents & POLLERR) // unmounted
			break;
		if (waits[1].revents & POLLIN && read(device, request, sizeof(request)) > 0)
			serve();
		else if (waits[0].revents && umount2(arguments[1], MNT_DETACH) == 0)
			break;
	}
	for (unsigned folder = 0; folder <= FOLDERS; folder++) {
		for (unsigned kind = 0; kind < 64; kind++) {
			unsigned count = log_of[folder][kind].count;

			if (!count)
				continue;
			printf("{\"folder\": \"%s\", \"operation\": %u, \"count\": %u, \"ns\": [",
			       folder < FOLDERS ? folders[folder] : "", kind, count);
			for (unsigned i = 0; i < count && i < MOST; i++)
				printf("%s%llu", i ? ", " : "", (unsigned long long)log_of[folder][kind].ns[i]);
			puts("]}");
		}
	}
	return 0;
}
