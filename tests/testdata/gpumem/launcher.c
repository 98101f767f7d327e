/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A launcher as torchrun is one: launcher FOLDER forks and executes three workers, each with a truth file of its own, and
 * says their numbers. FOLDER has the programs; truth goes to $TRUTHS.1 and so on.
 *
 * The second one loads the libraries with the first line; the third one has loaded them when it forks a child that executes
 * nothing.
 * For each line that it reads it hands one to all of them; at the end of its input it kills the first one by SIGKILL.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define WORKERS 3

static const char *const worker[WORKERS][4] = {
	{"linked", "example", "start"},
	{"unlinked", "pieces", "late"},
	{"unlinked", "mix", "forks"},
};

int main(int argc, char **argv)
{
	int to[WORKERS], pipes[2];
	pid_t pids[WORKERS];
	char text[4096];

	setvbuf(stdin, NULL, _IONBF, 0);
	for (int i = 0; i < WORKERS; i++) {
		if (pipe2(pipes, O_CLOEXEC))
			return 1;
		to[i] = pipes[1];
		pids[i] = fork();
		if (!pids[i]) {
			snprintf(text, sizeof(text), "%s.%d", getenv("TRUTHS"), i + 1);
			setenv("STANDIN_TRUTH", text, 1);
			dup2(pipes[0], 0);
			snprintf(text, sizeof(text), "%s/%s", argv[1], worker[i][0]);
			execl(text, text, worker[i][1], worker[i][2], NULL);
			_exit(127);
		}
		close(pipes[0]);
	}
	printf("[%d, %d, %d]\n", pids[0], pids[1], pids[2]);
	fflush(stdout);
	while (fgets(text, sizeof(text), stdin))
		for (int i = 0; i < WORKERS; i++)
			if (write(to[i], "\n", 1) != 1)
				return 1;
	kill(pids[0], SIGKILL);
	for (int i = 0; i < WORKERS; i++)
		close(to[i]);
	while (wait(NULL) > 0)
		;
	return 0;
}
