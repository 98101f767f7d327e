// Opens a file three functions deep, as often as it says, and waits until its input ends. Compiled with frame pointers.
#pragma GCC optimize("no-omit-frame-pointer")
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

__attribute__((noinline)) int innermost(const char *path)
{
	int fd = syscall(SYS_openat, AT_FDCWD, path, O_RDONLY); // it has no frame record

	if (fd < 0)
		exit(1);
	return close(fd) + 1;
}

__attribute__((noinline)) int in_between(const char *path)
{
	return innermost(path) + 1;
}

__attribute__((noinline)) int outermost(const char *path)
{
	return in_between(path) + 1;
}

int main(int count, char **arguments)
{
	for (int i = 1; i < count; i++)
		if (outermost(arguments[i]) != 3)
			return 1;
	return getchar() == EOF ? 0 : 1;
}
