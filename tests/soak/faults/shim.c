// Preloaded into a process, it counts what the process does to the files in some folders, and makes
// the n-th of these operations fail, or the process end just before it. A second count is of files
// that are opened for reading in another folder, of which one vanishes at the n-th.
//
// The functions of libc are replaced that change files. Not seen are the writes of stdio, which stay
// inside of libc (its fopen is), and of memory maps; a whole run tells by its log what it has missed.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { COUNT, END, FAIL_FROM, FAIL_ONCE, SLOW, VANISH };  // as in shim.py
enum { NEEDS_ROOM = 1, WRITES = 2 };

static struct {
  char changed[PATH_MAX], read[PATH_MAX], victim[PATH_MAX], hidden[PATH_MAX];
  int kind, value, log;
  long at;
} plan;
static volatile int armed;
static atomic_long operations, readings;

#define REAL(name) \
  static __typeof__(&name) real; \
  if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

// Every later operation of this process is counted. `log` is a file descriptor, to which a line is
// written for each (name, inode, bytes, path), or -1.
void faults_arm(const char* changed, const char* read, int kind, long at, int value,
                const char* victim, const char* hidden, int log) {
  strncpy(plan.changed, changed, PATH_MAX - 1);
  strncpy(plan.read, read, PATH_MAX - 1);
  strncpy(plan.victim, victim, PATH_MAX - 1);
  strncpy(plan.hidden, hidden, PATH_MAX - 1);
  plan.kind = kind, plan.at = at, plan.value = value, plan.log = log;
  operations = readings = 0;
  armed = 1;
}

static int lies_in(const char* path, const char* folder) {
  size_t length = strlen(folder);
  return length && !strncmp(path, folder, length) && (path[length] == '/' || !path[length]);
}

static void whole_path(char* to, int folder, const char* path) {
  char start[PATH_MAX] = "", link[64];
  if (path[0] != '/') {
    snprintf(link, sizeof link, folder == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", folder);
    ssize_t length = readlink(link, start, sizeof start - 1);
    start[length > 0 ? length : 0] = 0;
  }
  snprintf(to, PATH_MAX, path[0] == '/' ? "%s%s" : "%s/%s", start, path);
}

static void note(const char* name, const char* path, size_t bytes, int file) {
  if (plan.log < 0) return;
  char line[PATH_MAX + 128];
  struct stat about = {0};
  if (file >= 0) fstat(file, &about);
  int length = snprintf(line, sizeof line, "%s\t%lu\t%zu\t%s\n", name,
                        (unsigned long)about.st_ino, bytes, path);
  REAL(write);
  (void)!real(plan.log, line, length);
}

// Returns 0 if the operation may be done, the part of the bytes that may be written before the disk
// is full as -1, or the number of an error.
static int next(const char* path, const char* name, int what, size_t bytes, int file) {
  if (!armed || !lies_in(path, plan.changed)) return 0;
  long number = ++operations;
  note(name, path, bytes, file);
  int is_it = number == plan.at;
  switch (plan.kind) {
    case END:
      if (is_it) kill(getpid(), plan.value);
      return 0;
    case FAIL_ONCE: return is_it ? plan.value : 0;
    case FAIL_FROM:
      if (number < plan.at || (plan.value == ENOSPC && !(what & NEEDS_ROOM))) return 0;
      return is_it && plan.value == ENOSPC && (what & WRITES) && bytes > 1 ? -1 : plan.value;
    case SLOW: usleep(plan.value); return 0;
    default: return 0;
  }
}

static int next_of_file(int file, const char* name, int what, size_t bytes) {
  if (!armed || file == plan.log) return 0;
  char link[64], path[PATH_MAX];
  snprintf(link, sizeof link, "/proc/self/fd/%d", file);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length <= 0) return 0;
  path[length] = 0;
  return next(path, name, what, bytes, file);
}

static int next_of_path(int folder, const char* path, const char* name, int what) {
  if (!armed || !path) return 0;
  char whole[PATH_MAX];
  whole_path(whole, folder, path);
  return next(whole, name, what, 0, -1);
}

static void reading(int folder, const char* path) {
  if (!armed || !path) return;
  char whole[PATH_MAX];
  whole_path(whole, folder, path);
  if (!lies_in(whole, plan.read)) return;
  note("read", whole, 0, -1);
  if (++readings != plan.at || plan.kind != VANISH) return;
  REAL(rename);
  real(plan.victim, plan.hidden);
}

#define MAKES_FILE(flags) (((flags) & O_CREAT) || ((flags) & O_TMPFILE) == O_TMPFILE)

static int opening(int folder, const char* path, int flags) {
  if ((flags & O_ACCMODE) == O_RDONLY && !(flags & (O_CREAT | O_TRUNC))) {
    reading(folder, path);
    return 0;
  }
  return next_of_path(folder, path, "open", MAKES_FILE(flags) ? NEEDS_ROOM : 0);
}

#define FAIL_IF(code) \
  do { \
    int fails = (code); \
    if (fails) { errno = fails > 0 ? fails : ENOSPC; return -1; } \
  } while (0)

#define MODE_OF(flags) \
  mode_t mode = 0; \
  if (MAKES_FILE(flags)) { \
    va_list rest; \
    va_start(rest, flags); \
    mode = va_arg(rest, mode_t); \
    va_end(rest); \
  }

int open(const char* path, int flags, ...) {
  MODE_OF(flags) REAL(open); FAIL_IF(opening(AT_FDCWD, path, flags)); return real(path, flags, mode);
}
int open64(const char* path, int flags, ...) {
  MODE_OF(flags) REAL(open64); FAIL_IF(opening(AT_FDCWD, path, flags)); return real(path, flags, mode);
}
int openat(int folder, const char* path, int flags, ...) {
  MODE_OF(flags) REAL(openat); FAIL_IF(opening(folder, path, flags)); return real(folder, path, flags, mode);
}
int openat64(int folder, const char* path, int flags, ...) {
  MODE_OF(flags) REAL(openat64); FAIL_IF(opening(folder, path, flags)); return real(folder, path, flags, mode);
}
int creat(const char* path, mode_t mode) { return open(path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char* path, mode_t mode) { return open64(path, O_CREAT | O_WRONLY | O_TRUNC, mode); }

static int opening_stream(const char* path, const char* mode) {
  return opening(AT_FDCWD, path, mode[0] == 'r' && !strchr(mode, '+') ? O_RDONLY : O_WRONLY | O_CREAT);
}
FILE* fopen(const char* path, const char* mode) {
  REAL(fopen);
  int fails = opening_stream(path, mode);
  if (fails) { errno = fails > 0 ? fails : ENOSPC; return NULL; }
  return real(path, mode);
}
FILE* fopen64(const char* path, const char* mode) {
  REAL(fopen64);
  int fails = opening_stream(path, mode);
  if (fails) { errno = fails > 0 ? fails : ENOSPC; return NULL; }
  return real(path, mode);
}

// A disk that becomes full takes half of the bytes first.
#define WRITE(file, bytes, whole, half) \
  do { \
    int fails = next_of_file(file, __func__, NEEDS_ROOM | WRITES, bytes); \
    if (fails == -1) return half; \
    FAIL_IF(fails); \
    return whole; \
  } while (0)

static size_t length_of(const struct iovec* parts, int count) {
  size_t bytes = 0;
  for (int i = 0; i < count; ++i) bytes += parts[i].iov_len;
  return bytes;
}

ssize_t write(int file, const void* from, size_t n) {
  REAL(write); WRITE(file, n, real(file, from, n), real(file, from, n / 2));
}
ssize_t pwrite(int file, const void* from, size_t n, off_t at) {
  REAL(pwrite); WRITE(file, n, real(file, from, n, at), real(file, from, n / 2, at));
}
ssize_t pwrite64(int file, const void* from, size_t n, off64_t at) {
  REAL(pwrite64); WRITE(file, n, real(file, from, n, at), real(file, from, n / 2, at));
}
ssize_t writev(int file, const struct iovec* parts, int count) {
  REAL(writev); size_t n = length_of(parts, count);
  WRITE(file, n, real(file, parts, count), real(file, parts, (count + 1) / 2));
}
ssize_t pwritev(int file, const struct iovec* parts, int count, off_t at) {
  REAL(pwritev); size_t n = length_of(parts, count);
  WRITE(file, n, real(file, parts, count, at), real(file, parts, (count + 1) / 2, at));
}
ssize_t sendfile(int to, int from, off_t* at, size_t n) {
  REAL(sendfile); WRITE(to, n, real(to, from, at, n), real(to, from, at, n / 2));
}
ssize_t sendfile64(int to, int from, off64_t* at, size_t n) {
  REAL(sendfile64); WRITE(to, n, real(to, from, at, n), real(to, from, at, n / 2));
}
ssize_t copy_file_range(int from, off64_t* at, int to, off64_t* there, size_t n, unsigned flags) {
  REAL(copy_file_range); WRITE(to, n, real(from, at, to, there, n, flags), real(from, at, to, there, n / 2, flags));
}

int ftruncate(int file, off_t length) {
  REAL(ftruncate); FAIL_IF(next_of_file(file, "ftruncate", NEEDS_ROOM, 0)); return real(file, length);
}
int ftruncate64(int file, off64_t length) {
  REAL(ftruncate64); FAIL_IF(next_of_file(file, "ftruncate", NEEDS_ROOM, 0)); return real(file, length);
}
int truncate(const char* path, off_t length) {
  REAL(truncate); FAIL_IF(next_of_path(AT_FDCWD, path, "truncate", NEEDS_ROOM)); return real(path, length);
}
// The machine stays up, so that nothing need be on the disk: counted, but for speed not done.
int fsync(int file) {
  REAL(fsync); FAIL_IF(next_of_file(file, "fsync", 0, 0)); return armed ? 0 : real(file);
}
int fdatasync(int file) {
  REAL(fdatasync); FAIL_IF(next_of_file(file, "fsync", 0, 0)); return armed ? 0 : real(file);
}

#define ON_PATH(folder, path, name, what) FAIL_IF(next_of_path(folder, path, name, what))

int rename(const char* from, const char* to) {
  REAL(rename); ON_PATH(AT_FDCWD, to, "rename", 0); return real(from, to);
}
int renameat(int a, const char* from, int b, const char* to) {
  REAL(renameat); ON_PATH(b, to, "rename", 0); return real(a, from, b, to);
}
int renameat2(int a, const char* from, int b, const char* to, unsigned flags) {
  REAL(renameat2); ON_PATH(b, to, "rename", 0); return real(a, from, b, to, flags);
}
int link(const char* from, const char* to) {
  REAL(link); ON_PATH(AT_FDCWD, to, "link", NEEDS_ROOM); return real(from, to);
}
int linkat(int a, const char* from, int b, const char* to, int flags) {
  REAL(linkat); ON_PATH(b, to, "link", NEEDS_ROOM); return real(a, from, b, to, flags);
}
int symlink(const char* from, const char* to) {
  REAL(symlink); ON_PATH(AT_FDCWD, to, "symlink", NEEDS_ROOM); return real(from, to);
}
int mkdir(const char* path, mode_t mode) {
  REAL(mkdir); ON_PATH(AT_FDCWD, path, "mkdir", NEEDS_ROOM); return real(path, mode);
}
int mkdirat(int folder, const char* path, mode_t mode) {
  REAL(mkdirat); ON_PATH(folder, path, "mkdir", NEEDS_ROOM); return real(folder, path, mode);
}
int unlink(const char* path) {
  REAL(unlink); ON_PATH(AT_FDCWD, path, "unlink", 0); return real(path);
}
int unlinkat(int folder, const char* path, int flags) {
  REAL(unlinkat); ON_PATH(folder, path, "unlink", 0); return real(folder, path, flags);
}
int rmdir(const char* path) {
  REAL(rmdir); ON_PATH(AT_FDCWD, path, "unlink", 0); return real(path);
}
