#pragma once

#include <unistd.h>

#include <utility>

// A file descriptor with one owner; -1 when there is none.
class Fd {
 public:
  explicit Fd(int fd = -1) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    if (this != &other) {
      Close();
      fd_ = std::exchange(other.fd_, -1);
    }
    return *this;
  }
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  ~Fd() { Close(); }

  int get() const { return fd_; }

  void Close() {
    const int fd = std::exchange(fd_, -1);
    if (fd >= 0) ::close(fd);
  }

 private:
  int fd_;
};
