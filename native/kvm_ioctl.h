// The one place that calls ioctl(2).
#pragma once

#include <sys/ioctl.h>

#include <cerrno>
#include <cstdint>

// The ioctl's result, or -errno. A closed handle holds descriptor -1, for which the kernel itself answers -EBADF.
inline int KvmIoctl(int fd, unsigned long request, std::uintptr_t argument = 0) {
  const int result = ::ioctl(fd, request, argument);
  return result >= 0 ? result : -errno;
}

inline int KvmIoctl(int fd, unsigned long request, const void* argument) {
  return KvmIoctl(fd, request, reinterpret_cast<std::uintptr_t>(argument));
}
