#include "attributes.h"

#include <algorithm>
#include <vector>

#include "arguments.h"
#include "kvm_abi.h"
#include "kvm_ioctl.h"

namespace {

// The kernel alone knows how long an attribute is, so it is given a copy with room to spare: a caller's buffer that is
// too short then yields a truncated value instead of a write beyond its end. The longest attribute of arm64 is 16
// bytes.
constexpr std::size_t kRoom = 512;

std::vector<std::uint8_t> Roomy(std::span<const std::uint8_t> data) {
  std::vector<std::uint8_t> copy(std::max(data.size(), kRoom));
  std::copy(data.begin(), data.end(), copy.begin());
  return copy;
}

int Request(int fd, unsigned long request, const Napi::CallbackInfo& info, const void* address) {
  const kvm_abi::DeviceAttr attribute{
      .flags = 0,
      .group = ToUint32({info, 0, "group"}),
      .attr = ToUint64({info, 1, "attribute"}),
      .addr = reinterpret_cast<std::uintptr_t>(address),
  };
  return KvmIoctl(fd, request, &attribute);
}

}  // namespace

Napi::Value HasDeviceAttr(int fd, const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), Request(fd, kvm_abi::kHasDeviceAttr, info, nullptr));
}

Napi::Value GetDeviceAttr(int fd, const Napi::CallbackInfo& info) {
  const std::span<std::uint8_t> data = ToBytes({info, 2, "data"});
  // Some attributes read their arguments from the buffer to which they write the answer.
  std::vector<std::uint8_t> copy = Roomy(data);
  const int result = Request(fd, kvm_abi::kGetDeviceAttr, info, copy.data());
  std::copy_n(copy.begin(), data.size(), data.begin());
  return Napi::Number::New(info.Env(), result);
}

Napi::Value SetDeviceAttr(int fd, const Napi::CallbackInfo& info) {
  const Argument data{info, 2, "data"};
  if (data.IsNull()) return Napi::Number::New(info.Env(), Request(fd, kvm_abi::kSetDeviceAttr, info, nullptr));
  const std::vector<std::uint8_t> copy = Roomy(ToBytes(data));
  return Napi::Number::New(info.Env(), Request(fd, kvm_abi::kSetDeviceAttr, info, copy.data()));
}
