// Preloaded on a machine without /dev/kvm, so that the addon's threads can be tried under a sanitizer there: just enough of
// KVM for a vCPU that runs until immediate_exit or a signal ends it, or until the microseconds in kvm_run's byte 2048 have
// passed. Real kernels are tried in the lab; on arm64 the addon makes its system calls itself, and this file does nothing.
#define _GNU_SOURCE
#include <errno.h>
#include <linux/kvm.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096, IMMEDIATE_EXIT = 1, EXIT_AFTER = 2048 };

static int file(void) {
  int fd = (int)syscall(SYS_memfd_create, "fake-kvm", MFD_CLOEXEC);
  if (fd >= 0 && syscall(SYS_ftruncate, fd, PAGE) != 0) return -1;
  return fd;
}

int open(const char *path, int flags, ...) {
  if (strcmp(path, "/dev/kvm") == 0) return file();
  va_list list;
  va_start(list, flags);
  int mode = va_arg(list, int);
  va_end(list);
  return (int)syscall(SYS_open, path, flags, mode);
}

static int64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1000000 + time.tv_nsec / 1000;
}

static int run(int fd) {
  uint8_t *page = (uint8_t *)syscall(SYS_mmap, NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (page == MAP_FAILED) return -1;
  int32_t after = __atomic_load_n((int32_t *)(page + EXIT_AFTER), __ATOMIC_RELAXED);
  int64_t end = now() + after;
  int result = 0;
  while (result == 0 && (after == 0 || now() < end)) {
    struct timespec wait = {.tv_nsec = 20000};
    // A signal that comes between the two has set the flag before: the next turn sees it. The C library's function, since
    // ThreadSanitizer runs the handlers of signals there.
    if (__atomic_load_n(&page[IMMEDIATE_EXIT], __ATOMIC_SEQ_CST) != 0 || nanosleep(&wait, NULL) != 0)
      result = -1;
  }
  syscall(SYS_munmap, page, PAGE);
  if (result != 0) errno = EINTR;
  return result;
}

int ioctl(int fd, unsigned long request, ...) {
  va_list list;
  va_start(list, request);
  void *argument = va_arg(list, void *);
  va_end(list);
  switch (request) {
    case KVM_GET_API_VERSION:
      return KVM_API_VERSION;
    case KVM_GET_VCPU_MMAP_SIZE:
      return PAGE;
    case KVM_CREATE_VM:
    case KVM_CREATE_VCPU:
      return file();
    case KVM_ENABLE_CAP:
    case KVM_SET_USER_MEMORY_REGION:
      return 0;
    case KVM_RUN:
      return run(fd);
    default:
      return (int)syscall(SYS_ioctl, fd, request, argument);
  }
}
