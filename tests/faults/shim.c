/* System calls that fail, do half of their work, or end the process, when a test says so: loaded before the C library
   (LD_PRELOAD). strace can make calls fail too, but needs a new process for each; here one process tries them all. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

enum { OPEN, CREATE, READ, WRITE, COPY, CLONE, FSYNC, CLOSE, RENAME, LINK, MKDIR, UNLINK, RMDIR, SETXATTR, GETXATTR,
       STAT, UTIME, LOCK, LIST };
enum { FAIL, KILL, HALF, TEAR };         /* TEAR: half of the work, then the end of the process */
enum { FILES = 1, DIRECTORIES = 2 };     /* which descriptors are meant */

struct call { int kind, struck; unsigned long inode; };

static struct { unsigned kinds; long first, last; int action, error, descriptors; } plan;
static atomic_long seen, struck;         /* calls of the kinds; those that were made to fail */
static atomic_int watching;
static struct call calls[10000];
static atomic_long made;
static char spared_path[4096];           /* a file that is not the library's: the source of an upload */
static unsigned long spared_inode;

#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

static int inspect(int descriptor, struct stat64 *status)
{
    static int (*look)(int, struct stat64 *);
    if (!look) look = (int (*)(int, struct stat64 *))dlsym(RTLD_NEXT, "fstat64");
    int before = errno, result = look(descriptor, status);
    errno = before;
    return result;
}

void spare(const char *path)
{
    struct stat64 status;
    int descriptor = open(path, O_RDONLY);
    strncpy(spared_path, path, sizeof spared_path - 1);
    spared_inode = inspect(descriptor, &status) ? 0 : status.st_ino;
    close(descriptor);
}

void arm(unsigned kinds, long first, long last, int action, int error, int descriptors)
{
    plan.kinds = kinds, plan.first = first, plan.last = last;
    plan.action = action, plan.error = error, plan.descriptors = descriptors;
    seen = struck = made = 0;
    watching = 1;
}

long disarm(void)
{
    watching = 0;
    return struck;
}

long calls_made(void) { return made < 10000 ? made : 10000; }
struct call *calls_list(void) { return calls; }

static void end(void)
{
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

/* Whether this call is to do something else than it should. `path` is that of an opening, or NULL. */
static int meant(int kind, int descriptor, const char *path)
{
    if (!watching || (path && !strcmp(path, spared_path))) return 0;
    struct stat64 status = {0};
    int known = descriptor >= 0 && !inspect(descriptor, &status);
    if (!path && (!known || !(S_ISREG(status.st_mode) || S_ISDIR(status.st_mode)))) return 0;
    if (!path && spared_inode && status.st_ino == spared_inode) return 0;
    long place = made++, hit = 0;
    if (plan.kinds >> kind & 1 && (path || plan.descriptors & (S_ISDIR(status.st_mode) ? DIRECTORIES : FILES))) {
        long number = ++seen;
        hit = plan.first <= number && number <= plan.last;
    }
    if (place < 10000) calls[place] = (struct call){kind, hit, path ? 0 : status.st_ino};
    if (!hit) return 0;
    struck++;
    if (plan.action == KILL) end();
    if (plan.action == FAIL) errno = plan.error;
    return 1;
}

#define FAIL_IF_MEANT(kind, descriptor, path) \
    if (meant(kind, descriptor, path)) return -1

static size_t half(size_t size) { return size > 1 ? size / 2 : size; }

#define IN_PART(kind, descriptor, size, whole, part) \
    if (!meant(kind, descriptor, NULL)) return whole; \
    if (plan.action == FAIL) return -1; \
    ssize_t done = part; \
    if (plan.action == TEAR) end(); \
    return done

ssize_t write(int fd, const void *data, size_t size)
{
    REAL(write);
    IN_PART(WRITE, fd, size, real(fd, data, size), real(fd, data, half(size)));
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at)
{
    REAL(pwrite64);
    IN_PART(WRITE, fd, size, real(fd, data, size, at), real(fd, data, half(size), at));
}

ssize_t read(int fd, void *data, size_t size)
{
    REAL(read);
    IN_PART(READ, fd, size, real(fd, data, size), real(fd, data, half(size)));
}

ssize_t pread64(int fd, void *data, size_t size, off64_t at)
{
    REAL(pread64);
    IN_PART(READ, fd, size, real(fd, data, size, at), real(fd, data, half(size), at));
}

ssize_t copy_file_range(int from, off64_t *at, int to, off64_t *there, size_t size, unsigned flags)
{
    REAL(copy_file_range);
    IN_PART(COPY, to, size, real(from, at, to, there, size, flags), real(from, at, to, there, half(size), flags));
}

int ioctl(int fd, unsigned long request, ...)
{
    REAL(ioctl);
    va_list rest;
    va_start(rest, request);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    if (request == FICLONE) FAIL_IF_MEANT(CLONE, fd, NULL);
    return real(fd, request, argument);
}

static int kind_of(int flags) { return flags & O_CREAT ? CREATE : OPEN; }

/* An opening is listed with what was opened, so that it is known which file a later call is for. */
static int opened(int descriptor)
{
    struct stat64 status;
    long place = made - 1;
    if (watching && descriptor >= 0 && place >= 0 && place < 10000 && !inspect(descriptor, &status))
        calls[place].inode = status.st_ino;
    return descriptor;
}

#define OPENING(name, parameters, arguments, path) \
    int name parameters \
    { \
        REAL(name); \
        va_list rest; \
        va_start(rest, flags); \
        int mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(rest, int) : 0; \
        va_end(rest); \
        FAIL_IF_MEANT(kind_of(flags), -1, path); \
        return opened(real arguments); \
    }

OPENING(open, (const char *path, int flags, ...), (path, flags, mode), path)
OPENING(open64, (const char *path, int flags, ...), (path, flags, mode), path)
OPENING(openat, (int at, const char *path, int flags, ...), (at, path, flags, mode), path)
OPENING(openat64, (int at, const char *path, int flags, ...), (at, path, flags, mode), path)

long syscall(long number, ...)
{
    REAL(syscall);
    long arguments[6];
    va_list rest;
    va_start(rest, number);
    for (int i = 0; i < 6; i++) arguments[i] = va_arg(rest, long);
    va_end(rest);
    int opening = number == SYS_openat2;
    if (opening) FAIL_IF_MEANT(OPEN, -1, (const char *)arguments[1]);
    long result = real(number, arguments[0], arguments[1], arguments[2], arguments[3], arguments[4], arguments[5]);
    return opening ? opened(result) : result;
}

int close(int fd)
{
    REAL(close);
    int fails = meant(CLOSE, fd, NULL), error = errno;
    int result = real(fd);
    if (!fails) return result;
    errno = error;  /* Linux closes the descriptor all the same */
    return -1;
}

#define SIMPLE(kind, fd, result, name, parameters, arguments) \
    result name parameters \
    { \
        REAL(name); \
        FAIL_IF_MEANT(kind, fd, NULL); \
        return real arguments; \
    }

SIMPLE(FSYNC, fd, int, fsync, (int fd), (fd))
SIMPLE(STAT, fd, int, fstat64, (int fd, struct stat64 *status), (fd, status))
SIMPLE(STAT, at, int, fstatat64, (int at, const char *path, struct stat64 *status, int flags), (at, path, status, flags))
SIMPLE(UTIME, fd, int, futimens, (int fd, const struct timespec times[2]), (fd, times))
SIMPLE(LOCK, fd, int, flock, (int fd, int how), (fd, how))
SIMPLE(RENAME, at, int, renameat, (int at, const char *old, int there, const char *new), (at, old, there, new))
SIMPLE(LINK, at, int, linkat, (int at, const char *old, int there, const char *new, int flags),
       (at, old, there, new, flags))
SIMPLE(MKDIR, at, int, mkdirat, (int at, const char *path, mode_t mode), (at, path, mode))
SIMPLE(flags & AT_REMOVEDIR ? RMDIR : UNLINK, at, int, unlinkat, (int at, const char *path, int flags),
       (at, path, flags))
SIMPLE(SETXATTR, fd, int, fsetxattr, (int fd, const char *name, const void *value, size_t size, int flags),
       (fd, name, value, size, flags))
SIMPLE(GETXATTR, fd, ssize_t, fgetxattr, (int fd, const char *name, void *value, size_t size), (fd, name, value, size))

int mkdir(const char *path, mode_t mode)
{
    REAL(mkdir);
    FAIL_IF_MEANT(MKDIR, -1, path);
    return real(path, mode);
}

DIR *fdopendir(int fd)
{
    REAL(fdopendir);
    return meant(LIST, fd, NULL) ? NULL : real(fd);
}
