#include "registers.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <vector>

#include "arguments.h"
#include "kvm_abi.h"
#include "kvm_ioctl.h"

// The value's memory is read and written as 64-bit words, least significant first, as the kernel does on a
// little-endian machine: a narrower value is the low end of a word that was zero.
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__);

namespace {

constexpr unsigned kWidestBits = 2048;
using Value = std::array<std::uint64_t, kWidestBits / 64>;

unsigned SizeField(std::uint64_t id) { return static_cast<unsigned>(id >> 52) & 0xf; }

// Bits; meaningful for size fields up to 8.
unsigned Width(std::uint64_t id) { return 8u << SizeField(id); }

bool IsWiderThanWord(std::uint64_t id) { return SizeField(id) > 3; }

// Returns whether a value of at most 64 bits has more bits than the register.
bool Overflows(std::uint64_t id, std::uint64_t value) {
  const unsigned width = Width(id);
  return width < 64 && (value >> width) != 0;
}

[[noreturn]] void ThrowValueOutOfRange(Napi::Env env, std::uint64_t id) {
  std::array<char, 80> expected;
  std::snprintf(expected.data(), expected.size(), "an unsigned bigint that fits the %u bits of register 0x%llx",
                Width(id), static_cast<unsigned long long>(id));
  ThrowOutOfRange(env, "value", expected.data());
}

std::uint64_t RegisterId(Napi::Env env, napi_value value) {
  std::uint64_t id = 0;
  bool lossless = false;
  if (napi_get_value_bigint_uint64(env, value, &id, &lossless) != napi_ok) ThrowInvalidType(env, "id", "a bigint");
  if (!lossless) ThrowOutOfRange(env, "id", "a bigint from 0n to 2n ** 64n - 1n");
  if (SizeField(id) > 8) {
    ThrowOutOfRange(env, "id", "the id of a register of 8 to 2048 bits: its bits 55:52 are 0 to 8");
  }
  return id;
}

int Access(int fd, unsigned long request, std::uint64_t id, const void* address) {
  const kvm_abi::OneReg reg{.id = id, .addr = reinterpret_cast<std::uintptr_t>(address)};
  return KvmIoctl(fd, request, &reg);
}

// When userspace sets a firmware register (coprocessor 0x14 or 0x16), kernels older than 6.3 without the stable fix
// copy as many bytes as the id says into a 64-bit variable on their stack, before they check whether the id exists.
// They do so from a null address too, since they zero the part that could not be read. Fixed kernels return -ENOENT.
bool WouldOverflowKernelStack(std::uint64_t id) {
  constexpr std::uint64_t kCoprocessorMask = 0x0FFF0000;
  const std::uint64_t coprocessor = id & kCoprocessorMask;
  return IsWiderThanWord(id) && (coprocessor == 0x14 << 16 || coprocessor == 0x16 << 16);
}

// For such an id a get replaces the set: on every kernel a get compares the whole id before it accesses any memory, and
// fails just as a set does on a fixed kernel (-ENOEXEC before the vCPU is initialised, -EINVAL for a wrong
// architecture, -ENOENT).
int AskInsteadOfSetting(int fd, std::uint64_t id) {
  Value value{};
  const int result = Access(fd, kvm_abi::kGetOneReg, id, value.data());
  return result < 0 ? result : -ENOENT;
}

int Set(int fd, std::uint64_t id, const void* address) {
  if (WouldOverflowKernelStack(id)) return AskInsteadOfSetting(fd, id);
  return Access(fd, kvm_abi::kSetOneReg, id, address);
}

napi_value ToNumber(napi_env env, int number) {
  napi_value value = nullptr;
  napi_create_int32(env, number, &value);
  return value;
}

struct Batch {
  std::span<std::uint64_t> ids;
  std::span<std::uint64_t> values;
  std::span<std::int32_t> errnos;
};

Batch ToBatch(const Napi::CallbackInfo& info) {
  const Batch batch{ToUint64s({info, 0, "ids"}), ToUint64s({info, 1, "values"}), ToInt32s({info, 2, "errnos"})};
  if (batch.values.size() != batch.ids.size()) ThrowOutOfRange(info.Env(), "values", "as long as ids");
  if (batch.errnos.size() != batch.ids.size()) ThrowOutOfRange(info.Env(), "errnos", "as long as ids");
  return batch;
}

Napi::Value AccessAll(int fd, unsigned long request, const Napi::CallbackInfo& info, const Batch& batch) {
  // Without a descriptor no register can be accessed.
  if (fd < 0) return Napi::Number::New(info.Env(), fd);
  double failures = 0;
  for (std::size_t i = 0; i < batch.ids.size(); i++) {
    const std::uint64_t id = batch.ids[i];
    // The kernel fills as many bytes as the register has.
    if (request == kvm_abi::kGetOneReg) batch.values[i] = 0;
    const int result = IsWiderThanWord(id) ? -EINVAL : Access(fd, request, id, &batch.values[i]);
    batch.errnos[i] = result;
    if (result < 0) failures++;
  }
  return Napi::Number::New(info.Env(), failures);
}

}  // namespace

napi_value GetOneReg(napi_env env, int fd, const std::array<napi_value, 1>& arguments) {
  const std::uint64_t id = RegisterId(env, arguments[0]);
  napi_value result = nullptr;
  if (IsWiderThanWord(id)) {
    Value value{};
    const int error = Access(fd, kvm_abi::kGetOneReg, id, value.data());
    if (error < 0) return ToNumber(env, error);
    napi_create_bigint_words(env, 0, Width(id) / 64, value.data(), &result);
  } else {
    std::uint64_t value = 0;
    const int error = Access(fd, kvm_abi::kGetOneReg, id, &value);
    if (error < 0) return ToNumber(env, error);
    napi_create_bigint_uint64(env, value, &result);
  }
  return result;
}

napi_value SetOneReg(napi_env env, int fd, const std::array<napi_value, 2>& arguments) {
  const std::uint64_t id = RegisterId(env, arguments[0]);
  Value value{};
  std::size_t words = value.size();
  int sign = 0;
  if (napi_get_value_bigint_words(env, arguments[1], &sign, &words, value.data()) != napi_ok) {
    ThrowInvalidType(env, "value", "a bigint");
  }
  const std::size_t room = std::max(Width(id) / 64, 1u);
  if (sign != 0 || words > room || Overflows(id, value[0])) ThrowValueOutOfRange(env, id);
  return ToNumber(env, Set(fd, id, value.data()));
}

Napi::Value GetOneRegAtNull(int fd, const Napi::CallbackInfo& info) {
  const std::uint64_t id = RegisterId(info.Env(), info[0]);
  return Napi::Number::New(info.Env(), Access(fd, kvm_abi::kGetOneReg, id, nullptr));
}

Napi::Value SetOneRegAtNull(int fd, const Napi::CallbackInfo& info) {
  const std::uint64_t id = RegisterId(info.Env(), info[0]);
  return Napi::Number::New(info.Env(), Set(fd, id, nullptr));
}

Napi::Value GetRegs(int fd, const Napi::CallbackInfo& info) {
  return AccessAll(fd, kvm_abi::kGetOneReg, info, ToBatch(info));
}

Napi::Value SetRegs(int fd, const Napi::CallbackInfo& info) {
  const Batch batch = ToBatch(info);
  for (std::size_t i = 0; i < batch.ids.size(); i++) {
    const std::uint64_t id = batch.ids[i];
    if (!IsWiderThanWord(id) && Overflows(id, batch.values[i])) ThrowValueOutOfRange(info.Env(), id);
  }
  return AccessAll(fd, kvm_abi::kSetOneReg, info, batch);
}

Napi::Value GetRegList(int fd, const Napi::CallbackInfo& info) {
  const std::span<std::uint64_t> list = ToUint64s({info, 0, "list"}, 1);
  // The kernel reads n itself, and gets a copy: a worker or a guest that shares the list's memory could have raised n
  // since it was checked here. Kernels compare its low 32 bits with their count, and then write so many ids; the room
  // is for a future kernel that compares all 64.
  std::vector<std::uint64_t> copy(std::max(list.size(), kvm_abi::kRegListRoom));
  std::copy(list.begin(), list.end(), copy.begin());
  if (static_cast<std::uint32_t>(copy[0]) > list.size() - 1) {
    ThrowOutOfRange(info.Env(), "list", "longer than the count in its first element");
  }
  const int result = KvmIoctl(fd, kvm_abi::kGetRegList, copy.data());
  std::copy_n(copy.begin(), list.size(), list.begin());
  return Napi::Number::New(info.Env(), result);
}
