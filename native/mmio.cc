#include "mmio.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "kvm_abi.h"

namespace {

template <typename T>
T Load(const std::uint8_t* run, std::size_t offset) {
  T value;
  std::memcpy(&value, run + offset, sizeof(value));
  return value;
}

// Whether bytes that begin at `address` lie within a range. None of the sums can overflow: a range does not wrap, which
// the methods that add one check.
bool IsWithin(std::uint64_t address, std::uint64_t size, std::uint64_t start, std::uint64_t length) {
  return address >= start && address - start <= length && size <= length - (address - start);
}

bool Overlap(std::uint64_t one, std::uint64_t size, std::uint64_t other, std::uint64_t length) {
  return one < other ? other - one < size : one - other < length;
}

template <typename Ranges>
auto Find(Ranges& ranges, std::uint64_t address) {
  return std::find_if(ranges.begin(), ranges.end(), [=](const auto& range) { return range.address == address; });
}

}  // namespace

MmioAnswers::Answer MmioAnswers::Try(std::uint8_t* run) {
  using kvm_abi::KvmRunMmio;
  if (ranges_.load(std::memory_order_acquire) == 0) return Answer::kNone;
  if (Load<std::uint32_t>(run, kvm_abi::kRunExitReasonOffset) != kvm_abi::kExitMmio) return Answer::kNone;
  const auto mmio = Load<KvmRunMmio>(run, kvm_abi::kRunMmioOffset);
  if (mmio.len == 0 || mmio.len > sizeof(mmio.data)) return Answer::kNone;

  const std::lock_guard lock(mutex_);
  if (mmio.is_write == 0) {
    for (const Constant& constant : constants_) {
      if (!IsWithin(mmio.phys_addr, mmio.len, constant.address, constant.size)) continue;
      const std::uint64_t value = constant.value >> (8 * (mmio.phys_addr - constant.address));
      std::memcpy(run + kvm_abi::kRunMmioOffset + offsetof(KvmRunMmio, data), &value, mmio.len);
      return Answer::kGiven;
    }
    return Answer::kNone;
  }
  for (const Posted& range : posted_) {
    if (!IsWithin(mmio.phys_addr, mmio.len, range.address, range.size)) continue;
    if (log_.size() == kMostWrites) return Answer::kNone;
    std::uint64_t data = 0;
    std::memcpy(&data, mmio.data, mmio.len);
    log_.push_back({range.number, mmio.len, mmio.phys_addr, data});
    if (is_awake_) return Answer::kGiven;
    is_awake_ = true;
    return Answer::kGivenAndWake;
  }
  return Answer::kNone;
}

int MmioAnswers::SetConstant(std::uint64_t address, std::size_t size, std::uint64_t value) {
  if (size == 0 || size > sizeof(value) || address + (size - 1) < address) return -EINVAL;
  const std::lock_guard lock(mutex_);
  const auto known = Find(constants_, address);
  if (known != constants_.end() && known->size == size) {
    known->value = value;
    return 0;
  }
  for (const Constant& other : constants_) {
    if (Overlap(address, size, other.address, other.size)) return -EEXIST;
  }
  if (constants_.size() == kMostRanges) return -ENOSPC;
  constants_.push_back({address, size, value});
  Count();
  return 0;
}

int MmioAnswers::RemoveConstant(std::uint64_t address) {
  const std::lock_guard lock(mutex_);
  const auto known = Find(constants_, address);
  if (known == constants_.end()) return -ENOENT;
  constants_.erase(known);
  Count();
  return 0;
}

int MmioAnswers::AddPosted(std::uint64_t address, std::uint64_t size, std::uint32_t number) {
  if (size == 0 || address + (size - 1) < address) return -EINVAL;
  const std::lock_guard lock(mutex_);
  for (const Posted& other : posted_) {
    if (Overlap(address, size, other.address, other.size)) return -EEXIST;
  }
  if (posted_.size() == kMostRanges) return -ENOSPC;
  // A thread must not allocate, since it could not report that there is no memory.
  log_.reserve(kMostWrites);
  posted_.push_back({address, size, number});
  Count();
  return 0;
}

int MmioAnswers::RemovePosted(std::uint64_t address) {
  const std::lock_guard lock(mutex_);
  const auto known = Find(posted_, address);
  if (known == posted_.end()) return -ENOENT;
  posted_.erase(known);
  Count();
  return 0;
}

std::size_t MmioAnswers::Take(std::span<std::uint64_t> entries) {
  const std::lock_guard lock(mutex_);
  const std::size_t count = std::min(log_.size(), entries.size() / kWordsOfEntry);
  for (std::size_t n = 0; n < count; n++) {
    const Write& write = log_[n];
    entries[kWordsOfEntry * n] = write.number | (static_cast<std::uint64_t>(write.size) << 32);
    entries[kWordsOfEntry * n + 1] = write.address;
    entries[kWordsOfEntry * n + 2] = write.data;
  }
  log_.erase(log_.begin(), log_.begin() + static_cast<std::ptrdiff_t>(count));
  if (log_.empty()) is_awake_ = false;
  return count;
}

void MmioAnswers::ForgetWake() {
  const std::lock_guard lock(mutex_);
  is_awake_ = false;
}

void MmioAnswers::Count() { ranges_.store(constants_.size() + posted_.size(), std::memory_order_release); }
