#include "rings.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "kvm_abi.h"

namespace {

std::size_t PageSize() { return static_cast<std::size_t>(::sysconf(_SC_PAGESIZE)); }

}  // namespace

int TakeCoalescedWrites(const Mapping& run, std::span<std::uint64_t> entries) {
  // On arm64 the ring is the second page (KVM_CAP_COALESCED_MMIO answers 1).
  const std::size_t page = PageSize();
  if (run.size() < 2 * page) return -ENXIO;
  auto* const ring = reinterpret_cast<kvm_abi::CoalescedMmioRing*>(run.data() + page);
  const std::uint8_t* const slots = run.data() + page + sizeof(*ring);
  const auto capacity = static_cast<std::uint32_t>((page - sizeof(*ring)) / sizeof(kvm_abi::CoalescedMmio));
  std::uint32_t first = __atomic_load_n(&ring->first, __ATOMIC_RELAXED);
  const std::uint32_t last = __atomic_load_n(&ring->last, __ATOMIC_ACQUIRE);
  // JavaScript can write to the page.
  if (first >= capacity || last >= capacity) return -EINVAL;
  int taken = 0;
  for (; first != last && entries.size() >= kWordsOfCoalesced; taken++) {
    kvm_abi::CoalescedMmio write;
    std::memcpy(&write, slots + first * sizeof(write), sizeof(write));
    const std::size_t size = std::min<std::size_t>(write.len, sizeof(write.data));
    entries[0] = size;
    entries[1] = write.phys_addr;
    entries[2] = 0;
    // What lies beyond the size is left of an earlier write.
    std::memcpy(&entries[2], write.data, size);
    entries = entries.subspan(kWordsOfCoalesced);
    first = (first + 1) % capacity;
  }
  __atomic_store_n(&ring->first, first, __ATOMIC_RELEASE);
  return taken;
}

Shared<Mapping> DirtyRing::Map(int fd, std::size_t size) {
  return Mapping::Map(fd, size, kvm_abi::kDirtyLogPageOffset * PageSize());
}

int DirtyRing::Take(std::span<std::uint64_t> entries) {
  if (!mapping_) return -ENXIO;
  auto* const gfns = reinterpret_cast<kvm_abi::DirtyGfn*>(mapping_->data());
  const std::size_t count = mapping_->size() / sizeof(*gfns);
  int taken = 0;
  for (; entries.size() >= kWordsOfDirty; taken++) {
    kvm_abi::DirtyGfn& gfn = gfns[next_ % count];
    if (__atomic_load_n(&gfn.flags, __ATOMIC_ACQUIRE) != kvm_abi::kDirtyGfnDirty) break;
    entries[0] = gfn.slot;
    entries[1] = gfn.offset;
    entries = entries.subspan(kWordsOfDirty);
    __atomic_store_n(&gfn.flags, kvm_abi::kDirtyGfnReset, __ATOMIC_RELEASE);
    next_ = (next_ + 1) % count;
  }
  return taken;
}
