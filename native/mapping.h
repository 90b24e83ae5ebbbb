#pragma once

#include <cstddef>
#include <cstdint>

#include "napi_setup.h"
#include "shared.h"

// A shared memory mapping, unmapped when its last owner lets go. Owners are handles, ArrayBuffers over it, and the memory
// slots of VMs: KVM finds guest memory by its userspace address, so an address that a slot still names must not be given
// back, or whatever the process maps there next would be the guest's to read and write.
class Mapping {
 public:
  // Maps `size` bytes of `fd` for reading and writing; empty, with errno set, when that fails.
  static Shared<Mapping> Map(int fd, std::size_t size);

  Mapping(void* address, std::size_t size) : address_(address), size_(size) {}
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping();

  std::uint8_t* data() const { return static_cast<std::uint8_t*>(address_); }
  std::size_t size() const { return size_; }

 private:
  void* address_;
  std::size_t size_;
};

// An ArrayBuffer over a mapping, published as a property of a handle that can be neither written nor deleted.
class MappedBuffer {
 public:
  // Defines `name` on `handle`. Where the runtime forbids external buffers, or has none this large, the value is null.
  void Publish(Napi::Object handle, const char* name, Shared<Mapping> mapping);
  bool published() const { return hold_ != nullptr; }

  // Empties the ArrayBuffer, so that a late access is a read of undefined and not of unmapped memory, and lets go of the
  // mapping at once.
  void Detach(Napi::Object handle, const char* name);

 private:
  static void Finalize(napi_env env, void* data, void* hint);

  // The ArrayBuffer's share of the mapping; the ArrayBuffer's finalizer frees it.
  Shared<Mapping>* hold_ = nullptr;
};
