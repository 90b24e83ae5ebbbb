// The rings that KVM shares with this process: it writes at one end while the guest runs, and this process takes from
// the other. Their indexes and flags are read and written with the order that KVM keeps.
#pragma once

#include <cstdint>
#include <span>

#include "mapping.h"

// Words of an entry: the size in bytes, the address, the data.
constexpr std::size_t kWordsOfCoalesced = 3;

// Moves the writes that KVM coalesced to `entries`, oldest first. `run` is the mapping of any vCPU of the VM. Returns
// how many; -ENXIO if KVM has no such ring, -EINVAL if its indexes are none of it.
int TakeCoalescedWrites(const Mapping& run, std::span<std::uint64_t> entries);
