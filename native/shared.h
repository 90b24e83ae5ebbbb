#pragma once

#include <cstddef>
#include <utility>

// A value with several owners, all on one thread. std::shared_ptr does the same, but asks glibc 2.32 or newer how many
// threads there are, and the addon has to load on older ones.
template <typename T>
class Shared {
 public:
  template <typename... Arguments>
  static Shared Make(Arguments&&... arguments) {
    // In place, so that a value may be one that cannot be moved.
    return Shared(new Box{1, T(std::forward<Arguments>(arguments)...)});
  }

  Shared() = default;
  Shared(const Shared& other) : box_(other.box_) {
    if (box_ != nullptr) box_->owners++;
  }
  Shared(Shared&& other) noexcept : box_(std::exchange(other.box_, nullptr)) {}
  Shared& operator=(Shared other) noexcept {
    std::swap(box_, other.box_);
    return *this;
  }
  ~Shared() {
    if (box_ != nullptr && --box_->owners == 0) delete box_;
  }

  void Reset() { *this = Shared(); }
  // Whether there are other owners.
  bool IsShared() const { return box_ != nullptr && box_->owners > 1; }
  explicit operator bool() const { return box_ != nullptr; }
  T* operator->() const { return &box_->value; }
  T& operator*() const { return box_->value; }

 private:
  struct Box {
    std::size_t owners;
    T value;
  };
  explicit Shared(Box* box) : box_(box) {}

  Box* box_ = nullptr;
};
