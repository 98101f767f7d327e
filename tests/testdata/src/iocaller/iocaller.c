// SPDX-License-Identifier: Apache-2.0
// A program that knows its own calls on files: it prints them as JSON, by call and file, with how long they took by its own
// clock. What the file is called the kernel says (/proc/self/fd), as bytes in hexadecimal.
//
//	iocaller counted FOLDER    many calls of a few kinds
//	iocaller hard FOLDER       files that are hard to name
//	iocaller mapped FOLDER     a mapped file, cold and warm, and one read cold and warm
//	iocaller ring FOLDER       requests of io_uring
//	iocaller slow FILE         a blocking read of 20 ms, ten times
//	iocaller storm FOLDER N    N files that are not there
//	iocaller reads FOLDER N    N reads of 64 bytes
//	iocaller make FOLDER N     makes N files of 1000 bytes, a thousand in a folder
//	iocaller visit FOLDER N    opens, looks at, reads and closes each of them
//
// With a line on standard input it begins, if WAIT is set.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char buffer[1 << 20] __attribute__((aligned(4096)));
static int lines;

static uint64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000ull + time.tv_nsec;
}

static void die(const char *what)
{
	perror(what);
	exit(1);
}

// A line of the truth; of a child it goes to the same place.
static void told(const char *call, const char *path, long count, uint64_t ns)
{
	char line[10000];
	int at = sprintf(line, "{\"call\": \"%s\", \"count\": %ld, \"ns\": %llu, \"path\": \"", call, count,
			 (unsigned long long)ns);

	for (; *path; path++)
		at += sprintf(line + at, "%02x", (unsigned char)*path);
	at += sprintf(line + at, "\"}\n");
	if (syscall(SYS_write, 1, line, at) != at)
		die("write");
	lines++;
}

static const char *name_of(int fd)
{
	static char path[8192];
	char link[64];
	ssize_t size;

	sprintf(link, "/proc/self/fd/%d", fd);
	size = readlink(link, path, sizeof(path) - 1);
	if (size < 0)
		die("readlink");
	path[size] = 0;
	return path;
}

static int opened(const char *path, int flags)
{
	uint64_t begin = now();
	long fd = syscall(SYS_openat, AT_FDCWD, path, flags, 0644);
	uint64_t took = now() - begin;

	if (fd < 0)
		die(path);
	told("openat", name_of(fd), 1, took);
	return fd;
}

// Returns what the hundred took that took least: those during which nobody else had the CPU.
static uint64_t reads(int fd, int count)
{
	uint64_t begin = now(), last = begin, least = UINT64_MAX, time;

	for (int i = 1; i <= count; i++) {
		if (syscall(SYS_pread64, fd, buffer, 64, 0) < 0)
			die("pread64");
		if (i % 100 == 0) {
			time = now();
			least = time - last < least ? time - last : least;
			last = time;
		}
	}
	told("pread64", name_of(fd), count, now() - begin);
	return least;
}

static void fill(int fd, size_t size)
{
	uint64_t begin = now();

	memset(buffer, 'x', sizeof(buffer));
	for (size_t done = 0; done < size; done += sizeof(buffer))
		if (syscall(SYS_write, fd, buffer, sizeof(buffer)) != sizeof(buffer))
			die("write");
	told("write", name_of(fd), size / sizeof(buffer), now() - begin);
}

#define MANY(CALL, COUNT, PATH, ...)                                                                                       \
	do {                                                                                                               \
		uint64_t begin = now();                                                                                    \
		for (int i = 0; i < (COUNT); i++)                                                                          \
			syscall(SYS_##CALL, __VA_ARGS__);                                                                  \
		told(#CALL, PATH, COUNT, now() - begin);                                                                   \
	} while (0)

static void counted(void)
{
	char here[4096], missing[4200];
	struct iovec vector = {buffer, 32};
	struct stat status;
	int fd = opened("data", O_RDWR | O_CREAT), other = opened("other", O_RDWR | O_CREAT);

	fill(fd, 1 << 20);
	if (!getcwd(here, sizeof(here)))
		die("getcwd");
	sprintf(missing, "%s/missing", here);
	MANY(pread64, 10007, name_of(fd), fd, buffer, 64, 0);
	MANY(pwrite64, 5003, name_of(other), other, buffer, 100, 0);
	MANY(readv, 101, name_of(fd), fd, &vector, 1);
	MANY(fstat, 1009, name_of(fd), fd, &status);
	MANY(openat, 997, missing, AT_FDCWD, "missing", O_RDONLY);
	MANY(newfstatat, 499, missing, AT_FDCWD, missing, &status, 0);
	MANY(lseek, 211, name_of(other), other, 0, SEEK_SET);
	MANY(fsync, 3, name_of(other), other);
	MANY(ftruncate, 7, name_of(other), other, 4096);
}

static void send_it(int socket, int fd)
{
	char control[CMSG_SPACE(sizeof(int))] = {0};
	struct iovec vector = {"x", 1};
	struct msghdr message = {
		.msg_iov = &vector, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);

	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(header), &fd, sizeof(int));
	if (sendmsg(socket, &message, 0) < 0)
		die("sendmsg");
}

static int receive_it(int socket)
{
	char control[CMSG_SPACE(sizeof(int))], byte;
	struct iovec vector = {&byte, 1};
	struct msghdr message = {
		.msg_iov = &vector, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
	int fd;

	if (recvmsg(socket, &message, 0) < 0)
		die("recvmsg");
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(int));
	return fd;
}

static void wait_for(pid_t child)
{
	int status;

	if (waitpid(child, &status, 0) != child || status)
		die("child");
}

static void *in_thread(void *fd)
{
	reads((int)(intptr_t)fd, 17);
	return NULL;
}

static void hard(void)
{
	char here[4096], path[5000], name[256];
	int fd, other, pair[2], pipes[2];
	pthread_t thread;
	off_t from = 0;
	pid_t child;

	if (!getcwd(here, sizeof(here)))
		die("getcwd");
	fd = opened("plain", O_RDWR | O_CREAT);
	fill(fd, 1 << 20);
	reads(dup(fd), 3);
	pthread_create(&thread, NULL, in_thread, (void *)(intptr_t)fd);
	pthread_join(thread, NULL);

	// A child has it by inheritance, another over a socket.
	if (!(child = fork())) {
		reads(fd, 5);
		_exit(0);
	}
	wait_for(child);
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair))
		die("socketpair");
	if (!(child = fork())) {
		close(fd);
		reads(receive_it(pair[1]), 7);
		_exit(0);
	}
	send_it(pair[0], fd);
	wait_for(child);

	fd = opened("gone", O_RDWR | O_CREAT);
	unlink("gone");
	reads(fd, 11);
	fd = opened("before", O_RDWR | O_CREAT);
	reads(fd, 2);
	rename("before", "after");
	reads(fd, 13);
	reads(opened("../../../../../../../../../../../etc/hostname", O_RDONLY), 2);
	symlink("plain", "link");
	reads(opened("link", O_RDONLY), 1);
	reads(opened("\xff\xfe\n\033[31m\"'\\<b> \xe2\x80\xae", O_RDWR | O_CREAT), 3);
	reads(opened("\xf0\x9f\x90\xb9", O_RDWR | O_CREAT), 3);
	fd = syscall(SYS_openat, AT_FDCWD, here, O_TMPFILE | O_RDWR, 0600);
	if (fd >= 0)
		reads(fd, 2);
	reads(syscall(SYS_memfd_create, "in memory", 0), 2);

	// 4,000 bytes of path: more than one call may name.
	strcpy(path, here);
	memset(name, 'n', sizeof(name));
	while (strlen(path) < 3750) {
		name[240] = 0;
		if (mkdir(name, 0755) || chdir(name))
			die("mkdir");
		sprintf(path + strlen(path), "/%s", name);
	}
	fd = opened("file", O_RDWR | O_CREAT);
	reads(fd, 4);
	sprintf(path + strlen(path), "/absent");
	MANY(openat, 3, path, AT_FDCWD, path, O_RDONLY);
	if (chdir(here))
		die("chdir");
	// 150 folders within each other
	for (int i = 0; i < 150; i++)
		if (mkdir("d", 0755) || chdir("d"))
			die("mkdir");
	reads(opened("deep", O_RDWR | O_CREAT), 2);
	if (chdir(here))
		die("chdir");

	// Bytes that go from one file to another.
	fd = opened("plain", O_RDONLY);
	other = opened("copy", O_RDWR | O_CREAT);
	MANY(sendfile, 2, name_of(fd), other, fd, &from, 4096);
	from = 0;
	MANY(copy_file_range, 3, name_of(fd), fd, &from, other, NULL, 4096, 0);
	if (pipe(pipes))
		die("pipe");
	MANY(write, 5, name_of(pipes[1]), pipes[1], "x", 1);
	MANY(read, 5, name_of(pipes[0]), pipes[0], buffer, 1);
	MANY(splice, 1, name_of(fd), fd, NULL, pipes[1], NULL, 4096, 0);

	// A root of its own.
	mkdir("jail", 0755);
	fd = opened("jail/inside", O_RDWR | O_CREAT);
	sprintf(path, "%s/jail/inside", here);
	if (!(child = fork())) {
		if (chroot("jail") || chdir("/"))
			die("chroot");
		fd = syscall(SYS_openat, AT_FDCWD, "/inside", O_RDONLY);
		told("openat", path, 1, 0);
		for (int i = 0; i < 6; i++)
			syscall(SYS_pread64, fd, buffer, 1, 0);
		told("pread64", path, 6, 0);
		sprintf(path, "%s/jail/nothing", here);
		MANY(openat, 2, path, AT_FDCWD, "/nothing", O_RDONLY);
		_exit(0);
	}
	wait_for(child);

	// A mount namespace, with a file system that only it has.
	mkdir("mounted", 0755);
	if (!(child = fork())) {
		if (unshare(CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
		    mount("private", "mounted", "tmpfs", 0, NULL))
			die("mount");
		fd = opened("mounted/hidden", O_RDWR | O_CREAT);
		fill(fd, 1 << 20);
		reads(fd, 9);
		_exit(0);
	}
	wait_for(child);
}

static void mapped(void)
{
	size_t size = 8 << 20;
	volatile char sum = 0;
	char *at;
	int fd = opened("mapped", O_RDWR | O_CREAT), other = opened("read", O_RDWR | O_CREAT);

	fill(fd, size);
	fill(other, 1 << 20);
	fsync(fd);
	fsync(other);
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	posix_fadvise(other, 0, 0, POSIX_FADV_DONTNEED);
	at = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
	if (at == MAP_FAILED)
		die("mmap");
	for (size_t i = 0; i < size; i += 4096)
		sum += at[i];
	told("pages", name_of(fd), size / 4096, 0);
	// Not ahead: a read is cold for its own pages.
	posix_fadvise(other, 0, 0, POSIX_FADV_RANDOM);
	for (int i = 0; i < 16; i++)
		syscall(SYS_pread64, other, buffer, 4096, i * 65536);
	told("cold", name_of(other), 16, 0);
	for (int i = 0; i < 16; i++)
		syscall(SYS_pread64, other, buffer, 4096, i * 65536);
	told("warm", name_of(other), 16, 0);
	close(other);
	other = syscall(SYS_openat, AT_FDCWD, "read", O_RDONLY | O_DIRECT);
	for (int i = 0; i < 5; i++)
		if (syscall(SYS_pread64, other, buffer, 4096, 0) != 4096)
			die("direct");
	told("direct", name_of(other), 5, 0);
}

static void ring(void)
{
	struct io_uring_params params = {0};
	int fd = opened("ringed", O_RDWR | O_CREAT), queue;
	const struct {
		int opcode, count;
		const char *name;
	} kinds[] = {{IORING_OP_WRITE, 12, "io_uring write"},
		     {IORING_OP_READ, 31, "io_uring read"},
		     {IORING_OP_FSYNC, 2, "io_uring fsync"}};
	struct io_uring_sqe *entries;
	char *submissions, *completions;
	unsigned *tail, *mask, *array;

	fill(fd, 1 << 20);
	queue = syscall(SYS_io_uring_setup, 8, &params);
	if (queue < 0) {
		told("no io_uring", "", 0, 0);
		return;
	}
	submissions = mmap(NULL, params.sq_off.array + params.sq_entries * 4, PROT_READ | PROT_WRITE, MAP_SHARED, queue,
			   IORING_OFF_SQ_RING);
	completions = mmap(NULL, params.cq_off.cqes + params.cq_entries * 16, PROT_READ | PROT_WRITE, MAP_SHARED, queue,
			   IORING_OFF_CQ_RING);
	entries = mmap(NULL, params.sq_entries * sizeof(*entries), PROT_READ | PROT_WRITE, MAP_SHARED, queue,
		       IORING_OFF_SQES);
	tail = (unsigned *)(submissions + params.sq_off.tail);
	mask = (unsigned *)(submissions + params.sq_off.ring_mask);
	array = (unsigned *)(submissions + params.sq_off.array);
	for (size_t kind = 0; kind < sizeof(kinds) / sizeof(*kinds); kind++) {
		uint64_t begin = now();

		for (int i = 0; i < kinds[kind].count; i++) {
			unsigned index = *tail & *mask;
			struct io_uring_sqe *entry = &entries[index];

			memset(entry, 0, sizeof(*entry));
			entry->opcode = kinds[kind].opcode;
			entry->fd = fd;
			entry->addr = kinds[kind].opcode == IORING_OP_FSYNC ? 0 : (uint64_t)buffer;
			entry->len = kinds[kind].opcode == IORING_OP_FSYNC ? 0 : 4096;
			entry->flags = i & 1 ? IOSQE_ASYNC : 0;
			array[index] = index;
			__atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
			if (syscall(SYS_io_uring_enter, queue, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) != 1)
				die("io_uring_enter");
			__atomic_fetch_add((unsigned *)(completions + params.cq_off.head), 1, __ATOMIC_RELEASE);
		}
		told(kinds[kind].name, name_of(fd), kinds[kind].count, now() - begin);
	}
}

// A pipe that is written to every 20 ms.
static void slow(void)
{
	uint64_t took = 0;
	int pipes[2];
	pid_t child;

	if (pipe(pipes))
		die("pipe");
	if (!(child = fork())) {
		for (int i = 0; i < 10; i++) {
			usleep(20000);
			syscall(SYS_write, pipes[1], "x", 1);
		}
		_exit(0);
	}
	for (int i = 0; i < 10; i++) {
		uint64_t begin = now();

		if (syscall(SYS_read, pipes[0], buffer, 1) != 1)
			die("read");
		took += now() - begin;
	}
	told("read", name_of(pipes[0]), 10, took);
	wait_for(child);
}

static void storm(int count)
{
	char name[64];

	for (int i = 0; i < count; i++) {
		sprintf(name, "shard-%d", i);
		syscall(SYS_openat, AT_FDCWD, name, O_RDONLY);
	}
	told("openat", "", count, 0);
}

static void make(int count)
{
	char name[64];
	int fd;

	for (int i = 0; i < count; i++) {
		sprintf(name, "class-%04d", i / 1000);
		if (i % 1000 == 0 && mkdir(name, 0755))
			die(name);
		sprintf(name, "class-%04d/image-%07d.jpg", i / 1000, i);
		fd = open(name, O_WRONLY | O_CREAT | O_EXCL, 0644);
		if (ftruncate(fd, 1000)) // a hole: in memory it takes no page
			die(name);
		close(fd);
	}
}

static void visit(int count)
{
	struct stat status;
	char name[64];
	int fd;

	for (int i = 0; i < count; i++) {
		sprintf(name, "class-%04d/image-%07d.jpg", i / 1000, i);
		fd = syscall(SYS_openat, AT_FDCWD, name, O_RDONLY);
		if (syscall(SYS_fstat, fd, &status) || syscall(SYS_read, fd, buffer, 4096) != 1000)
			die(name);
		close(fd);
	}
	told("visit", "", count, 0);
}

int main(int count, char **arguments)
{
	if (getenv("WAIT"))
		fgets(buffer, sizeof(buffer), stdin);
	if (count < 3 || chdir(arguments[2]))
		die("iocaller MODE FOLDER");
	if (!strcmp(arguments[1], "counted"))
		counted();
	else if (!strcmp(arguments[1], "hard"))
		hard();
	else if (!strcmp(arguments[1], "mapped"))
		mapped();
	else if (!strcmp(arguments[1], "ring"))
		ring();
	else if (!strcmp(arguments[1], "slow"))
		slow();
	else if (count > 3 && !strcmp(arguments[1], "storm"))
		storm(atoi(arguments[3]));
	else if (count > 3 && !strcmp(arguments[1], "make"))
		make(atoi(arguments[3]));
	else if (count > 3 && !strcmp(arguments[1], "visit"))
		visit(atoi(arguments[3]));
	else if (count > 3 && !strcmp(arguments[1], "reads"))
		told("at best", "", 100, reads(opened("data", O_RDWR | O_CREAT), atoi(arguments[3])));
	else
		die("MODE");
	return 0;
}
