// The parts of Linux that Swift's Glibc module leaves out. Declarations only where glibc hides them behind
// _GNU_SOURCE, and one-line wrappers where the call is variadic, which Swift cannot import.
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <pthread.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <unistd.h>

extern int accept4(int, struct sockaddr *, socklen_t *, int);
extern int pipe2(int[2], int);
extern int pthread_setname_np(pthread_t, const char *);

static inline int fanout_open(const char *path, int flags, mode_t mode) { return open(path, flags, mode); }
static inline int fanout_pidfd_open(pid_t pid) { return (int)syscall(SYS_pidfd_open, pid, 0); }
static inline int fanout_pidfd_getfd(int pidfd, int fd) { return (int)syscall(SYS_pidfd_getfd, pidfd, fd, 0); }
static inline int fanout_winsize(int fd, struct winsize *size) { return ioctl(fd, TIOCGWINSZ, size); }
static inline int fanout_fcntl(int fd, int command, int argument) { return fcntl(fd, command, argument); }
static inline int fanout_fallocate_keep_size(int fd, off_t offset, off_t count) {
    return (int)syscall(SYS_fallocate, fd, 1 /* FALLOC_FL_KEEP_SIZE */, offset, count);
}
static inline off_t fanout_seek_hole(int fd, off_t offset) { return lseek(fd, offset, 4 /* SEEK_HOLE */); }

#include "spawn.h"
#include "crc32c.h"
