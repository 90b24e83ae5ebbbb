// The one place that calls ioctl(2).
#pragma once

#include <sys/ioctl.h>
#include <sys/syscall.h>

#include <cerrno>
#include <cstdint>

// Returns the ioctl's result, or -errno. A negative number in place of a descriptor is returned as it is: -EBADF of a
// closed handle.
inline int KvmIoctl(int fd, unsigned long request, std::uintptr_t argument = 0) {
  if (fd < 0) return fd;
#ifdef __aarch64__
  // Not by the C library's function, which lies in another file: the jumps there and back cost a batch of registers a
  // twentieth of its time (npm run bench). The variables must not be const: a constant is not kept in the register
  // named.
  register long result __asm__("x0") = fd;
  register unsigned long number __asm__("x1") = request;
  register std::uintptr_t address __asm__("x2") = argument;
  register long call __asm__("x8") = SYS_ioctl;
  __asm__ volatile("svc #0" : "+r"(result) : "r"(number), "r"(address), "r"(call) : "memory");
  return static_cast<int>(result);
#else
  const int result = ::ioctl(fd, request, argument);
  return result >= 0 ? result : -errno;
#endif
}

inline int KvmIoctl(int fd, unsigned long request, const void* argument) {
  return KvmIoctl(fd, request, reinterpret_cast<std::uintptr_t>(argument));
}
