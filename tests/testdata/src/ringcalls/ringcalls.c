// SPDX-License-Identifier: Apache-2.0
// A program that opens, links, and waits by io_uring alone, in the folder that it is given: it prints what it does, a line
// of JSON for each request, with the path that it gave and how long it waited by its own clock.
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/io_uring.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static struct io_uring_params params;
static struct io_uring_sqe *entries;
static char *submissions, *completions;
static int queue;

static uint64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000ull + time.tv_nsec;
}

#define AT(BASE, FIELD) ((unsigned *)((BASE) + params.FIELD))

static void submit(struct io_uring_sqe entry)
{
	unsigned *tail = AT(submissions, sq_off.tail), index = *tail & *AT(submissions, sq_off.ring_mask);

	entries[index] = entry;
	AT(submissions, sq_off.array)[index] = index;
	__atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
}

static int wait_for(int many, int submitted)
{
	unsigned *head = AT(completions, cq_off.head);
	struct io_uring_cqe *done = (struct io_uring_cqe *)(completions + params.cq_off.cqes);
	int result;

	if (syscall(SYS_io_uring_enter, queue, submitted, many, IORING_ENTER_GETEVENTS, NULL, 0) != submitted)
		exit(1);
	result = done[*head & *AT(completions, cq_off.ring_mask)].res;
	__atomic_store_n(head, *head + many, __ATOMIC_RELEASE);
	return result;
}

static int requested(const char *name, const char *path, struct io_uring_sqe entry)
{
	uint64_t begin = now();
	int result;

	submit(entry);
	result = wait_for(1, 1);
	printf("{\"call\": \"io_uring %s\", \"path\": \"%s\", \"result\": %d, \"ns\": %llu}\n", name, path, result,
	       (unsigned long long)(now() - begin));
	return result;
}

#define REQUEST(NAME, CODE, PATH, ...) requested(NAME, PATH, (struct io_uring_sqe){.opcode = CODE, __VA_ARGS__})
#define TEXT(PATH) ((uint64_t)(PATH))

int main(int count, char **arguments)
{
	struct __kernel_timespec moment = {.tv_nsec = 300000000};
	static char buffer[4096];
	struct statx status;
	int file, folder, pair[2];

	if (count < 2 || chdir(arguments[1]))
		return 2;
	queue = syscall(SYS_io_uring_setup, 64, &params);
	if (queue < 0) {
		puts("{\"call\": \"no io_uring\"}");
		return 0;
	}
	submissions = mmap(NULL, params.sq_off.array + params.sq_entries * 4, PROT_READ | PROT_WRITE, MAP_SHARED, queue,
			   IORING_OFF_SQ_RING);
	completions = mmap(NULL, params.cq_off.cqes + params.cq_entries * 16, PROT_READ | PROT_WRITE, MAP_SHARED, queue,
			   IORING_OFF_CQ_RING);
	entries = mmap(NULL, params.sq_entries * sizeof(*entries), PROT_READ | PROT_WRITE, MAP_SHARED, queue,
		       IORING_OFF_SQES);
	folder = open(".", O_RDONLY | O_DIRECTORY);
	file = REQUEST("openat", IORING_OP_OPENAT, "ring-a", .fd = AT_FDCWD, .addr = TEXT("ring-a"), .len = 0600,
		       .open_flags = O_CREAT | O_RDWR);
	REQUEST("openat", IORING_OP_OPENAT, "ring-nope", .fd = folder, .addr = TEXT("ring-nope"));
	REQUEST("write", IORING_OP_WRITE, "ring-a", .fd = file, .addr = TEXT(buffer), .len = sizeof(buffer));
	REQUEST("statx", IORING_OP_STATX, "ring-a", .fd = AT_FDCWD, .addr = TEXT("ring-a"), .len = STATX_BASIC_STATS,
		.off = TEXT(&status));
	REQUEST("symlinkat", IORING_OP_SYMLINKAT, "ring-s", .fd = folder, .addr = TEXT("ring-a"), .off = TEXT("ring-s"));
	REQUEST("linkat", IORING_OP_LINKAT, "ring-a", .fd = AT_FDCWD, .addr = TEXT("ring-a"), .len = AT_FDCWD,
		.off = TEXT("ring-l"));
	REQUEST("mkdirat", IORING_OP_MKDIRAT, "ring-d", .fd = folder, .addr = TEXT("ring-d"), .len = 0700);
	REQUEST("renameat", IORING_OP_RENAMEAT, "ring-l", .fd = AT_FDCWD, .addr = TEXT("ring-l"), .len = AT_FDCWD,
		.off = TEXT("ring-m"));
	REQUEST("unlinkat", IORING_OP_UNLINKAT, "ring-s", .fd = folder, .addr = TEXT("ring-s"));
	REQUEST("nop", IORING_OP_NOP, "", .fd = -1);
	REQUEST("timeout", IORING_OP_TIMEOUT, "", .fd = -1, .addr = TEXT(&moment), .len = 1);
	socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
	REQUEST("send", IORING_OP_SEND, "", .fd = pair[0], .addr = TEXT(buffer), .len = 100);
	REQUEST("recv", IORING_OP_RECV, "", .fd = pair[1], .addr = TEXT(buffer), .len = 100);
	REQUEST("close", IORING_OP_CLOSE, "ring-a", .fd = file);
	return 0;
}
