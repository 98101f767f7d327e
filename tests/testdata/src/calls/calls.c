/* Calls a function of its own and one of libc from several threads, and tells in JSON how often, and where they are. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define THREADS 3

static unsigned long own_calls, libc_calls, sum;

__attribute__((noinline)) void work(unsigned long number, unsigned long double_number)
{
	__atomic_fetch_add(&sum, number ^ double_number, __ATOMIC_RELAXED);
}

static void *caller(void *which)
{
	unsigned long number;

	for (number = (unsigned long)which; number < own_calls; number += THREADS)
		work(number, 2 * number);
	for (number = (unsigned long)which; number < libc_calls; number += THREADS)
		getppid();
	return NULL;
}

/* calls OWN-CALLS LIBC-CALLS: at each line of the standard input it calls them as often; it ends with the input. */
int main(int count, char **arguments)
{
	pthread_t threads[THREADS];
	unsigned long which;

	if (count != 3)
		return 2;
	own_calls = strtoul(arguments[1], NULL, 10);
	libc_calls = strtoul(arguments[2], NULL, 10);
	while (getchar() != EOF) {
		sum = 0;
		for (which = 0; which < THREADS; which++)
			if (pthread_create(&threads[which], NULL, caller, (void *)which))
				return 1;
		for (which = 0; which < THREADS; which++)
			pthread_join(threads[which], NULL);
		printf("{\"work\": %lu, \"getppid\": %lu, \"sum\": %lu, \"work_at\": %lu, \"getppid_at\": %lu}\n",
		       own_calls, libc_calls, sum, (unsigned long)work, (unsigned long)dlsym(RTLD_DEFAULT, "getppid"));
		fflush(stdout);
	}
	return 0;
}
