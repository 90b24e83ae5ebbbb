#pragma once

#include <unistd.h>

#include <cerrno>
#include <utility>

// A file descriptor with one owner; -EBADF if there is none, which KvmIoctl() then returns.
class Fd {
 public:
  explicit Fd(int fd = -EBADF) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -EBADF)) {}
  Fd& operator=(Fd&& other) noexcept {
    if (this != &other) {
      Close();
      fd_ = std::exchange(other.fd_, -EBADF);
    }
    return *this;
  }
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  ~Fd() { Close(); }

  int get() const { return fd_; }

  void Close() {
    const int fd = std::exchange(fd_, -EBADF);
    if (fd >= 0) ::close(fd);
  }

 private:
  int fd_;
};
