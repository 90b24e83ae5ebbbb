// The rings that KVM shares with this process: it writes at one end while the guest runs, and this process takes from
// the other. Their indexes and flags are read and written with the order that KVM keeps.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include "mapping.h"

// Words of an entry of coalesced writes: the size in bytes, the address, the data.
constexpr std::size_t kWordsOfCoalesced = 3;

// Moves the writes that KVM coalesced to `entries`, oldest first. `run` is the mapping of any vCPU of the VM. Returns
// how many; -ENXIO if KVM has no such ring, -EINVAL if its indexes are beyond its end.
int TakeCoalescedWrites(const Mapping& run, std::span<std::uint64_t> entries);

// Words of an entry of written pages: the slot, the page in it.
constexpr std::size_t kWordsOfDirty = 2;

// A vCPU's dirty ring.
class DirtyRing {
 public:
  // Maps the ring of `size` bytes of a vCPU; empty, with errno set, when that fails.
  static Shared<Mapping> Map(int fd, std::size_t size);

  // `mapping` is empty if the vCPU has no ring.
  explicit DirtyRing(Shared<Mapping> mapping) : mapping_(std::move(mapping)) {}

  // Moves the pages that KVM has added to `entries`, oldest first, and marks them for KVM_RESET_DIRTY_RINGS. Returns
  // how many; -ENXIO without a ring.
  int Take(std::span<std::uint64_t> entries);
  void Close() { mapping_.Reset(); }

 private:
  Shared<Mapping> mapping_;
  // The entry to be taken next.
  std::size_t next_ = 0;
};
