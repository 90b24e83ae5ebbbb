#pragma once

#include <cstddef>
#include <cstdint>

#include "napi_setup.h"
#include "shared.h"

// A shared memory mapping, whose memory is released with its last owner. Owners are handles, ArrayBuffers over it, and
// the memory slots of VMs: KVM finds guest memory by its userspace address, so an address that a slot still names must
// not be released, or the guest could read and write whatever the process maps there next.
//
// The addresses themselves are released only when the ArrayBuffer object is gone too. crypto and fs use the address on
// other threads and hold on to that object, detached or not; after the memory was released they read and write empty
// memory that has no other use.
class Mapping {
 public:
  // Maps `size` bytes of `fd` from `offset` on for reading and writing; empty, with errno set, when that fails.
  static Shared<Mapping> Map(int fd, std::size_t size, std::size_t offset = 0);

  Mapping(void* address, std::size_t size) : range_(Shared<Range>::Make(address, size)) {}
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping();

  std::uint8_t* data() const { return static_cast<std::uint8_t*>(range_->address); }
  std::size_t size() const { return range_->size; }

 private:
  friend class MappedBuffer;

  // Addresses of this process, unmapped when their last owner lets go.
  struct Range {
    Range(void* start, std::size_t length) : address(start), size(length) {}
    Range(const Range&) = delete;
    Range& operator=(const Range&) = delete;
    ~Range();

    void* const address;
    const std::size_t size;
  };

  Shared<Range> range_;
};

// An ArrayBuffer over a mapping, published as a property of a handle that can be neither written nor deleted.
class MappedBuffer {
 public:
  // Defines `name` on `handle`. If the runtime forbids external buffers, or supports none this large, the value is
  // null.
  void Publish(Napi::Object handle, const char* name, const Shared<Mapping>& mapping);
  bool published() const { return hold_ != nullptr; }

  // Empties the ArrayBuffer, so that a late access reads undefined instead of unmapped memory, and releases the mapping
  // at once.
  void Detach(Napi::Object handle, const char* name);

 private:
  static void ReleaseMapping(napi_env env, void* data, void* hold);
  static void ReleaseRange(napi_env env, void* hold, void* hint);

  // The ArrayBuffer's share of the mapping; its finalizer frees it.
  Shared<Mapping>* hold_ = nullptr;
};
