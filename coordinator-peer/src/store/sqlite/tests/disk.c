/* A disk and a clock that do what real ones do once in years. Loaded into a process under test with LD_PRELOAD.
 *
 * It watches files whose name begins with "coordinator.db"; the shared memory beside them (-shm) is no file.
 *
 * TALKA_TEST_DISK_SURVIVORS=DIR: DIR gets what a power cut would leave at this moment, in the worst case: of each
 * file the bytes that were written before its last fsync or fdatasync, and nothing else. That a file is gone is
 * taken as lasting at once. Torn sectors are not modelled.
 *
 * TALKA_TEST_DISK_UNDER=DIR: all files under DIR are on the disk that may be full, too; of them nothing else is known.
 *
 * TALKA_TEST_DISK_CONTROL=FILE: three 64-bit numbers that the test changes while the process runs: seconds that the
 * wall clock is ahead; whether the disk is full; whether it is read-only. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

struct control {
    volatile int64_t ahead_secs, full, read_only;
};

/* A range that was written since the last sync of a file. */
struct file {
    dev_t device;
    ino_t inode;
    off_t from, to;
    char name[64];
};

static struct control none, *control = &none;
static const char *survivors, *under;
static struct file files[64];
static int count;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static int (*real_fsync)(int), (*real_fdatasync)(int), (*real_ftruncate)(int, off_t);
static int (*real_unlink)(const char *), (*real_open)(const char *, int, ...);
static int (*real_clock)(clockid_t, struct timespec *);

__attribute__((constructor)) static void start(void) {
    real_write = dlsym(RTLD_NEXT, "write");
    real_pwrite = dlsym(RTLD_NEXT, "pwrite64");
    real_fsync = dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    real_ftruncate = dlsym(RTLD_NEXT, "ftruncate64");
    real_unlink = dlsym(RTLD_NEXT, "unlink");
    real_open = dlsym(RTLD_NEXT, "open64");
    real_clock = dlsym(RTLD_NEXT, "clock_gettime");
    survivors = getenv("TALKA_TEST_DISK_SURVIVORS");
    under = getenv("TALKA_TEST_DISK_UNDER");
    const char *path = getenv("TALKA_TEST_DISK_CONTROL");
    if (path) {
        int fd = real_open(path, O_RDWR);
        void *mapped = mmap(0, sizeof *control, PROT_READ, MAP_SHARED, fd, 0);
        if (mapped == MAP_FAILED) abort();
        control = mapped;
        close(fd);
    }
}

static const char *watched(const char *path) {
    const char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;
    return strncmp(name, "coordinator.db", 14) || strstr(name, "-shm") || strlen(name) >= 64 ? 0 : name;
}

/* The entry of an open file; the lock is held. */
static struct file *entry(int fd) {
    struct stat stat;
    if (fd < 3 || fstat(fd, &stat) || !S_ISREG(stat.st_mode)) return 0;
    for (int i = 0; i < count; i++)
        if (files[i].device == stat.st_dev && files[i].inode == stat.st_ino) return &files[i];
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    const char *name = watched(path);
    if (!name) return 0;
    if (count == 64) abort();
    struct file *file = &files[count++];
    *file = (struct file){stat.st_dev, stat.st_ino, 0, stat.st_size, ""};
    strcpy(file->name, name);
    return file;
}

static void wrote(int fd, off_t from, off_t to) {
    if (!survivors || to <= from) return;
    pthread_mutex_lock(&lock);
    struct file *file = entry(fd);
    if (file && file->from >= file->to) file->from = from, file->to = to;
    if (file && from < file->from) file->from = from;
    if (file && to > file->to) file->to = to;
    pthread_mutex_unlock(&lock);
}

/* What is on the disk after a sync: the file as it was when the sync began. */
static void synced(int fd) {
    char path[4096], buffer[1 << 16];
    struct stat stat;
    if (!survivors) return;
    pthread_mutex_lock(&lock);
    struct file *file = entry(fd);
    if (file && !fstat(fd, &stat)) {
        snprintf(path, sizeof path, "%s/%s", survivors, file->name);
        int out = real_open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        if (out < 0) abort();
        for (off_t at = file->from; at < file->to;) {
            size_t want = file->to - at < (off_t)sizeof buffer ? (size_t)(file->to - at) : sizeof buffer;
            ssize_t got = pread(fd, buffer, want, at);
            if (got <= 0) break;
            if (real_pwrite(out, buffer, got, at) != got) abort();
            at += got;
        }
        if (real_ftruncate(out, stat.st_size)) abort();
        close(out);
        file->from = file->to = 0;
    }
    pthread_mutex_unlock(&lock);
}

/* Whether a file lies under the directory that is on the disk as well. */
static int is_under(int fd) {
    struct stat stat;
    char link[64], path[4096];
    if (!under || fd < 3 || fstat(fd, &stat) || !S_ISREG(stat.st_mode)) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    return !strncmp(path, under, strlen(under));
}

/* Whether the disk refuses to write to this file. */
static int refuses(int fd) {
    if (!control->full) return 0;
    if (is_under(fd)) return errno = ENOSPC, 1;
    pthread_mutex_lock(&lock);
    int is_ours = entry(fd) != 0;
    pthread_mutex_unlock(&lock);
    if (is_ours) errno = ENOSPC;
    return is_ours;
}

ssize_t pwrite64(int fd, const void *data, size_t length, off_t at) {
    if (refuses(fd)) return -1;
    ssize_t done = real_pwrite(fd, data, length, at);
    int error = errno;
    if (done > 0) wrote(fd, at, at + done);
    errno = error;
    return done;
}
ssize_t pwrite(int fd, const void *data, size_t length, off_t at) { return pwrite64(fd, data, length, at); }

ssize_t write(int fd, const void *data, size_t length) {
    if (fd > 2 && refuses(fd)) return -1;
    ssize_t done = real_write(fd, data, length);
    int error = errno;
    if (survivors && fd > 2 && done > 0) {
        off_t end = lseek(fd, 0, SEEK_CUR);
        if (end > 0) wrote(fd, end - done, end);
    }
    errno = error;
    return done;
}

int fsync(int fd) {
    int result = real_fsync(fd);
    if (!result) synced(fd);
    return result;
}
int fdatasync(int fd) {
    int result = real_fdatasync(fd);
    if (!result) synced(fd);
    return result;
}

int unlink(const char *path) {
    const char *name = watched(path);
    struct stat stat;
    int known = name && !lstat(path, &stat);
    int result = real_unlink(path);
    if (!known || result) return result;
    pthread_mutex_lock(&lock);
    /* The next file may get its inode. */
    for (int i = 0; i < count; i++)
        if (files[i].device == stat.st_dev && files[i].inode == stat.st_ino) files[i] = files[--count];
    if (survivors) {
        char gone[4096];
        snprintf(gone, sizeof gone, "%s/%s", survivors, name);
        real_unlink(gone);
    }
    pthread_mutex_unlock(&lock);
    return 0;
}

int open64(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    if (control->read_only && watched(path) && (flags & (O_RDWR | O_WRONLY | O_CREAT))) {
        errno = EROFS;
        return -1;
    }
    return real_open(path, flags, mode);
}
int open(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    return open64(path, flags, mode);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    if (!real_clock) real_clock = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real_clock(clock, now);
    if (!result && clock == CLOCK_REALTIME) now->tv_sec += control->ahead_secs;
    return result;
}
