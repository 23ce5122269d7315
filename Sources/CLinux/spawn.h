// Starting a child. Between fork and exec only async-signal-safe calls are allowed, which Swift code cannot promise, so
// this part is C. Whatever fails in the child is reported to the parent through a pipe that exec closes.
#include <grp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

extern int close_range(unsigned int, unsigned int, int);

struct fanout_spawn {
    const char *path;
    char *const *argv;
    char *const *envp;
    const char *directory; // or NULL
    int out;               // descriptors to become 1 and 2, or -1
    int err;
    int own_group;
    int set_user;
    uid_t uid;
    gid_t gid;
    int death_signal; // or 0
};

static inline void fanout_spawn_child(const struct fanout_spawn *spawn, pid_t parent) {
    sigset_t none;
    sigemptyset(&none);
    for (int number = 1; number < 32; number++) signal(number, SIG_DFL);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (spawn->own_group && setpgid(0, 0) != 0) return;
    if (spawn->set_user && (setgroups(0, NULL) != 0 || setgid(spawn->gid) != 0 || setuid(spawn->uid) != 0)) return;
    // After setuid, which would clear it. The parent may have died before.
    if (spawn->death_signal && prctl(PR_SET_PDEATHSIG, spawn->death_signal) != 0) return;
    if (spawn->death_signal && getppid() != parent) _exit(127);
    if (spawn->directory && chdir(spawn->directory) != 0) return;
    if (spawn->out >= 0 && dup2(spawn->out, 1) < 0) return;
    if (spawn->err >= 0 && dup2(spawn->err, 2) < 0) return;
    // Libraries open descriptors of their own, not all of them to be closed by exec.
    close_range(3, ~0U, 1 << 2 /* CLOSE_RANGE_CLOEXEC */);
    execve(spawn->path, spawn->argv, spawn->envp);
}

/// The child's id, or -1 with errno: why it could not be started.
static inline pid_t fanout_spawn(const struct fanout_spawn *spawn) {
    int report[2];
    if (pipe2(report, O_CLOEXEC) != 0) return -1;
    pid_t parent = getpid();
    pid_t child = fork();
    if (child == 0) {
        fanout_spawn_child(spawn, parent);
        int number = errno;
        while (write(report[1], &number, sizeof number) < 0 && errno == EINTR) {}
        _exit(127);
    }
    int number = errno;
    close(report[1]);
    if (child > 0) {
        ssize_t count;
        number = 0;
        while ((count = read(report[0], &number, sizeof number)) < 0 && errno == EINTR) {}
        if (count > 0) {
            while (waitpid(child, NULL, 0) < 0 && errno == EINTR) {}
            child = -1;
        }
    }
    close(report[0]);
    if (child < 0) errno = number;
    return child;
}
