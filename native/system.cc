#include "system.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "arguments.h"
#include "kvm_abi.h"
#include "kvm_ioctl.h"
#include "memory.h"
#include "vm.h"

Napi::Function System::Define(Napi::Env env) {
  return DefineClass(env, "SystemFd",
                     {
                         InstanceMethod<&System::GetApiVersion>("getApiVersion"),
                         InstanceMethod<&System::CheckExtension>("checkExtension"),
                         InstanceMethod<&System::GetVcpuMmapSize>("getVcpuMmapSize"),
                         InstanceMethod<&System::CreateVm>("createVm"),
                         InstanceMethod<&System::CreateMemory>("createMemory"),
                         InstanceMethod<&System::Close>("close"),
                     });
}

Napi::Value System::Open(const Napi::CallbackInfo& info) {
  Fd fd(::open("/dev/kvm", O_RDWR | O_CLOEXEC));
  if (fd.get() < 0) return Napi::Number::New(info.Env(), -errno);
  return System::Create(info.Env(), Parts{std::move(fd)});
}

Napi::Value System::GetApiVersion(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), KvmIoctl(parts_.fd.get(), kvm_abi::kGetApiVersion));
}

Napi::Value System::CheckExtension(const Napi::CallbackInfo& info) {
  const std::uint32_t capability = ToUint32({info, 0, "capability"});
  return Napi::Number::New(info.Env(), KvmIoctl(parts_.fd.get(), kvm_abi::kCheckExtension, capability));
}

Napi::Value System::GetVcpuMmapSize(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), KvmIoctl(parts_.fd.get(), kvm_abi::kGetVcpuMmapSize));
}

Napi::Value System::CreateVm(const Napi::CallbackInfo& info) {
  const std::uint64_t type = ToUint64({info, 0, "type"});
  const int run_size = KvmIoctl(parts_.fd.get(), kvm_abi::kGetVcpuMmapSize);
  if (run_size < 0) return Napi::Number::New(info.Env(), run_size);
  const int fd = KvmIoctl(parts_.fd.get(), kvm_abi::kCreateVm, type);
  if (fd < 0) return Napi::Number::New(info.Env(), fd);
  return Vm::Create(info.Env(), Vm::Parts{Fd(fd), static_cast<std::size_t>(run_size)});
}

Napi::Value System::CreateMemory(const Napi::CallbackInfo& info) {
  const std::size_t size = ToSize({info, 0, "size"});
  if (parts_.fd.get() < 0) return Napi::Number::New(info.Env(), -EBADF);
  const std::size_t page_size = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  if (size == 0 || size % page_size != 0) return Napi::Number::New(info.Env(), -EINVAL);
  Shared<Mapping> mapping = Memory::Allocate(size);
  if (!mapping) return Napi::Number::New(info.Env(), -errno);
  return Memory::Create(info.Env(), Memory::Parts{std::move(mapping)});
}

void System::Close(const Napi::CallbackInfo&) { parts_.fd.Close(); }
