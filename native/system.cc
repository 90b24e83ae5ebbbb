#include "system.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "arguments.h"
#include "event.h"
#include "kvm_abi.h"
#include "kvm_ioctl.h"
#include "memory.h"
#include "vm.h"

Napi::Function SystemFd::Define(Napi::Env env) {
  return DefineClass(env, "SystemFd",
                     {
                         InstanceMethod<&SystemFd::GetApiVersion>("getApiVersion"),
                         InstanceMethod<&SystemFd::CheckExtension>("checkExtension"),
                         InstanceMethod<&SystemFd::GetVcpuMmapSize>("getVcpuMmapSize"),
                         InstanceMethod<&SystemFd::CreateVm>("createVm"),
                         InstanceMethod<&SystemFd::CreateMemory>("createMemory"),
                         InstanceMethod<&SystemFd::CreateEvent>("createEvent"),
                         InstanceMethod<&SystemFd::Close>("close"),
                     });
}

Napi::Value SystemFd::Open(const Napi::CallbackInfo& info) {
  Fd fd(::open("/dev/kvm", O_RDWR | O_CLOEXEC));
  if (fd.get() < 0) return Napi::Number::New(info.Env(), -errno);
  return SystemFd::Create(info.Env(), Parts{std::move(fd)});
}

Napi::Value SystemFd::GetApiVersion(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), KvmIoctl(descriptor(), kvm_abi::kGetApiVersion));
}

Napi::Value SystemFd::CheckExtension(const Napi::CallbackInfo& info) {
  const std::uint32_t capability = ToUint32({info, 0, "capability"});
  return Napi::Number::New(info.Env(), KvmIoctl(descriptor(), kvm_abi::kCheckExtension, capability));
}

Napi::Value SystemFd::GetVcpuMmapSize(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), KvmIoctl(descriptor(), kvm_abi::kGetVcpuMmapSize));
}

Napi::Value SystemFd::CreateVm(const Napi::CallbackInfo& info) {
  const std::uint64_t type = ToUint64({info, 0, "type"});
  const int run_size = KvmIoctl(descriptor(), kvm_abi::kGetVcpuMmapSize);
  if (run_size < 0) return Napi::Number::New(info.Env(), run_size);
  const int fd = KvmIoctl(descriptor(), kvm_abi::kCreateVm, type);
  if (fd < 0) return Napi::Number::New(info.Env(), fd);
  return VmFd::Create(info.Env(), VmFd::Parts{Fd(fd), static_cast<std::size_t>(run_size)});
}

Napi::Value SystemFd::CreateMemory(const Napi::CallbackInfo& info) {
  const std::size_t size = ToSize({info, 0, "size"});
  if (descriptor() < 0) return Napi::Number::New(info.Env(), -EBADF);
  const std::size_t page_size = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  if (size == 0 || size % page_size != 0) return Napi::Number::New(info.Env(), -EINVAL);
  Shared<Mapping> mapping = GuestMemoryFd::Allocate(size);
  if (!mapping) return Napi::Number::New(info.Env(), -errno);
  return GuestMemoryFd::Create(info.Env(), GuestMemoryFd::Parts{std::move(mapping)});
}

Napi::Value SystemFd::CreateEvent(const Napi::CallbackInfo& info) {
  if (descriptor() < 0) return Napi::Number::New(info.Env(), descriptor());
  Fd fd = EventFd::Make();
  if (fd.get() < 0) return Napi::Number::New(info.Env(), -errno);
  return EventFd::Create(info.Env(), EventFd::Parts{std::move(fd)});
}

void SystemFd::Close(const Napi::CallbackInfo&) { parts_.fd.Close(); }
