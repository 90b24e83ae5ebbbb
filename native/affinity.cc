#include "affinity.h"

#include <sched.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "arguments.h"

namespace {

// sched.h wants its own type, aligned as longs; each is a set of 1024 CPUs.
std::vector<cpu_set_t> RoomFor(std::size_t bytes) {
  return std::vector<cpu_set_t>((bytes + sizeof(cpu_set_t) - 1) / sizeof(cpu_set_t));
}

}  // namespace

Napi::Value GetAffinity(const Napi::CallbackInfo& info) {
  const std::span<std::uint8_t> mask = ToBytes({info, 0, "mask"});
  std::vector<cpu_set_t> sets = RoomFor(mask.size());
  if (::sched_getaffinity(0, sets.size() * sizeof(cpu_set_t), sets.data()) != 0) {
    return Napi::Number::New(info.Env(), -errno);
  }
  // The kernel's longs are little-endian, as every machine with an addon is.
  const auto* const bytes = reinterpret_cast<const std::uint8_t*>(sets.data());
  std::copy_n(bytes, mask.size(), mask.begin());
  return Napi::Number::New(info.Env(), 0);
}

Napi::Value SetAffinity(const Napi::CallbackInfo& info) {
  const std::span<const std::uint8_t> mask = ToBytes({info, 0, "mask"});
  std::vector<cpu_set_t> sets = RoomFor(mask.size());
  std::copy(mask.begin(), mask.end(), reinterpret_cast<std::uint8_t*>(sets.data()));
  const int result = ::sched_setaffinity(0, sets.size() * sizeof(cpu_set_t), sets.data());
  return Napi::Number::New(info.Env(), result == 0 ? 0 : -errno);
}
