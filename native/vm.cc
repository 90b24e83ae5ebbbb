#include "vm.h"

#include <cerrno>

#include "arguments.h"
#include "attributes.h"
#include "device.h"
#include "kvm_abi.h"
#include "kvm_ioctl.h"
#include "memory.h"
#include "vcpu.h"

Napi::Function Vm::Define(Napi::Env env) {
  return DefineClass(env, "VmFd",
                     {
                         InstanceMethod<&Vm::CheckExtension>("checkExtension"),
                         InstanceMethod<&Vm::EnableCap>("enableCap"),
                         InstanceMethod<&Vm::CreateVcpu>("createVcpu"),
                         InstanceMethod<&Vm::GetPreferredTarget>("getPreferredTarget"),
                         InstanceMethod<&Vm::GetRegWritableMasks>("getRegWritableMasks"),
                         InstanceMethod<&Vm::SetUserMemoryRegion>("setUserMemoryRegion"),
                         InstanceMethod<&Vm::CreateDevice>("createDevice"),
                         InstanceMethod<&Vm::HasAttr>("hasDeviceAttr"),
                         InstanceMethod<&Vm::GetAttr>("getDeviceAttr"),
                         InstanceMethod<&Vm::SetAttr>("setDeviceAttr"),
                         InstanceMethod<&Vm::Close>("close"),
                     });
}

Napi::Value Vm::CheckExtension(const Napi::CallbackInfo& info) {
  const std::uint32_t capability = ToUint32({info, 0, "capability"});
  return Napi::Number::New(info.Env(), KvmIoctl(parts_.fd.get(), kvm_abi::kCheckExtension, capability));
}

Napi::Value Vm::EnableCap(const Napi::CallbackInfo& info) {
  kvm_abi::EnableCap request{};
  request.cap = ToUint32({info, 0, "capability"});
  request.flags = ToUint32({info, 1, "flags"});
  CopyUint64s({info, 2, "args"}, request.args);
  return Napi::Number::New(info.Env(), KvmIoctl(parts_.fd.get(), kvm_abi::kEnableCap, &request));
}

Napi::Value Vm::CreateVcpu(const Napi::CallbackInfo& info) {
  const std::uint32_t id = ToUint32({info, 0, "id"});
  Fd fd(KvmIoctl(parts_.fd.get(), kvm_abi::kCreateVcpu, id));
  if (fd.get() < 0) return Napi::Number::New(info.Env(), fd.get());
  Shared<Mapping> run = Mapping::Map(fd.get(), parts_.run_size);
  if (!run) return Napi::Number::New(info.Env(), -errno);
  return Vcpu::Create(info.Env(), Vcpu::Parts{slots_, std::move(run), std::move(fd)});
}

Napi::Value Vm::GetPreferredTarget(const Napi::CallbackInfo& info) {
  const std::span<std::uint32_t> init = ToUint32s({info, 0, "init"}, sizeof(kvm_abi::VcpuInit) / sizeof(std::uint32_t));
  return Napi::Number::New(info.Env(), KvmIoctl(parts_.fd.get(), kvm_abi::kArmPreferredTarget, init.data()));
}

Napi::Value Vm::GetRegWritableMasks(const Napi::CallbackInfo& info) {
  kvm_abi::RegMaskRange request{};
  request.range = ToUint32({info, 0, "range"});
  request.addr =
      reinterpret_cast<std::uintptr_t>(ToUint64s({info, 1, "masks"}, kvm_abi::kFeatureIdRangeSize).data());
  return Napi::Number::New(info.Env(), KvmIoctl(parts_.fd.get(), kvm_abi::kArmGetRegWritableMasks, &request));
}

Napi::Value Vm::SetUserMemoryRegion(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const Napi::Object request = ToObject({info, 0, "region"});
  kvm_abi::UserMemoryRegion region{};
  region.slot = ToUint32({request, "slot"});
  region.flags = ToUint32({request, "flags"});
  region.guest_phys_addr = ToUint64({request, "address"});
  const Argument memory{request, "memory"};
  const std::size_t offset = ToSize({request, "offset"});
  const std::size_t size = ToSize({request, "size"});
  region.memory_size = size;

  // From here on no JavaScript runs that could close what is used.
  Shared<Mapping> mapping;
  if (!memory.IsNull()) {
    const Memory* const guest_memory = Memory::From(memory.value);
    if (guest_memory == nullptr) ThrowInvalidType(env, memory.name, "memory made by createMemory(), or null");
    mapping = guest_memory->mapping();
    if (!mapping) return Napi::Number::New(env, -EBADF);
    // The kernel would take any address of this process; what lies beyond the mapping is not the guest's to see.
    if (offset > mapping->size() || size > mapping->size() - offset) {
      ThrowOutOfRange(env, "size", "within the memory, counted from offset");
    }
    region.userspace_addr = reinterpret_cast<std::uintptr_t>(mapping->data() + offset);
  } else if (size != 0) {
    ThrowInvalidType(env, memory.name, "memory made by createMemory() unless size is 0");
  }

  if (parts_.fd.get() < 0) return Napi::Number::New(env, parts_.fd.get());
  // Room for the owner is made before the kernel is asked: once it has the memory, nothing may fail.
  Shared<Mapping>& owner = (*slots_)[region.slot];
  const int result = KvmIoctl(parts_.fd.get(), kvm_abi::kSetUserMemoryRegion, &region);
  if (result == 0) owner = size == 0 ? Shared<Mapping>() : std::move(mapping);
  if (!owner) slots_->erase(region.slot);
  return Napi::Number::New(env, result);
}

Napi::Value Vm::CreateDevice(const Napi::CallbackInfo& info) {
  kvm_abi::CreateDevice request{};
  request.type = ToUint32({info, 0, "type"});
  request.flags = ToUint32({info, 1, "flags"});
  const int result = KvmIoctl(parts_.fd.get(), kvm_abi::kCreateDevice, &request);
  if (result < 0 || (request.flags & kvm_abi::kCreateDeviceTest) != 0) return Napi::Number::New(info.Env(), result);
  return Device::Create(info.Env(), Device::Parts{slots_, Fd(static_cast<int>(request.fd))});
}

Napi::Value Vm::HasAttr(const Napi::CallbackInfo& info) { return HasDeviceAttr(parts_.fd.get(), info); }

Napi::Value Vm::GetAttr(const Napi::CallbackInfo& info) { return GetDeviceAttr(parts_.fd.get(), info); }

Napi::Value Vm::SetAttr(const Napi::CallbackInfo& info) { return SetDeviceAttr(parts_.fd.get(), info); }

void Vm::Close(const Napi::CallbackInfo&) {
  parts_.fd.Close();
  slots_.Reset();
}
