// Preloaded on a machine without /dev/kvm, so that the addon can be tried there: just enough of KVM for slots, devices without
// attributes, and a vCPU that runs until immediate_exit or a signal ends it, or until the microseconds in kvm_run's byte 2048
// have passed; before that it writes to a device as often as the word at byte 2052 says. Real kernels are tried in the lab; on arm64 the addon makes its system calls itself, and this file does nothing.
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

enum { PAGE = 4096, IMMEDIATE_EXIT = 1, EXIT_REASON = 8, MMIO = 32, EXIT_AFTER = 2048, WRITES = 2052, VCPUS = 256, SLOTS = 16, DEVICES = 16 };

// The page of a VM's descriptor.
struct vm {
  uint8_t has_vcpu[VCPUS];
  struct kvm_userspace_memory_region slots[SLOTS];
};

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
  int32_t *writes = (int32_t *)(page + WRITES);
  if (*writes > 0 && __atomic_load_n(&page[IMMEDIATE_EXIT], __ATOMIC_SEQ_CST) == 0) {
    struct {
      uint64_t address, data;
      uint32_t size;
      uint8_t is_write;
    } mmio = {.address = 0x9000000, .data = (uint64_t)-- * writes, .size = 4, .is_write = 1};
    uint32_t reason = KVM_EXIT_MMIO;
    memcpy(page + MMIO, &mmio, sizeof(mmio));
    memcpy(page + EXIT_REASON, &reason, sizeof(reason));
    syscall(SYS_munmap, page, PAGE);
    return 0;
  }
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

static int refuse(int number) {
  errno = number;
  return -1;
}

static int create_vcpu(struct vm *vm, uintptr_t id) {
  if (id >= VCPUS) return refuse(EINVAL);
  if (vm->has_vcpu[id]) return refuse(EEXIST);
  vm->has_vcpu[id] = 1;
  return file();
}

static int set_slot(struct vm *vm, const struct kvm_userspace_memory_region *region) {
  uint64_t begin = region->guest_phys_addr;
  uint64_t end = begin + region->memory_size;
  if (region->flags & ~(uint32_t)(KVM_MEM_LOG_DIRTY_PAGES | KVM_MEM_READONLY)) return refuse(EINVAL);
  if ((begin | region->memory_size | region->userspace_addr) % PAGE != 0) return refuse(EINVAL);
  if (region->slot >= SLOTS || end < begin) return refuse(EINVAL);
  for (uint32_t slot = 0; slot < SLOTS && region->memory_size != 0; slot++) {
    const struct kvm_userspace_memory_region *other = &vm->slots[slot];
    if (slot == region->slot || other->memory_size == 0) continue;
    if (begin < other->guest_phys_addr + other->memory_size && other->guest_phys_addr < end) return refuse(EEXIST);
  }
  vm->slots[region->slot] = *region;
  return 0;
}

static int of_vm(int fd, unsigned long request, void *argument) {
  struct vm *vm = (struct vm *)syscall(SYS_mmap, NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (vm == MAP_FAILED) return -1;
  int result = request == KVM_CREATE_VCPU ? create_vcpu(vm, (uintptr_t)argument)
                                          : set_slot(vm, (const struct kvm_userspace_memory_region *)argument);
  int error = errno;
  syscall(SYS_munmap, vm, PAGE);
  errno = error;
  return result;
}

static int create_device(struct kvm_create_device *device) {
  if (device->type >= DEVICES) return refuse(ENODEV);
  int fd = file();
  device->fd = (uint32_t)fd;
  return fd < 0 ? -1 : 0;
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
      return file();
    case KVM_CREATE_VCPU:
    case KVM_SET_USER_MEMORY_REGION:
      return of_vm(fd, request, argument);
    case KVM_CREATE_DEVICE:
      return create_device((struct kvm_create_device *)argument);
    case KVM_GET_STATS_FD:
      return file();
    case KVM_ENABLE_CAP:
      return 0;
    case KVM_RUN:
      return run(fd);
    default:
      return (int)syscall(SYS_ioctl, fd, request, argument);
  }
}
