#include "stats.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "arguments.h"
#include "kvm_abi.h"
#include "kvm_ioctl.h"

Napi::Function StatsFd::Define(Napi::Env env) {
  return DefineClass(env, "StatsFd",
                     {
                         InstanceMethod<&StatsFd::Read>("read"),
                         InstanceMethod<&StatsFd::Close>("close"),
                     });
}

Napi::Value StatsFd::Open(Napi::Env env, int fd, const Shared<MemorySlots>& slots) {
  Fd stats(KvmIoctl(fd, kvm_abi::kGetStatsFd));
  if (stats.get() < 0) return Napi::Number::New(env, stats.get());
  // KVM opens it without close-on-exec, so that a child process would inherit it.
  static_cast<void>(::fcntl(stats.get(), F_SETFD, FD_CLOEXEC));
  const int owner = ::fcntl(fd, F_DUPFD_CLOEXEC, 0);
  if (owner < 0) return Napi::Number::New(env, -errno);
  return StatsFd::Create(env, Parts{slots, Fd(owner), std::move(stats)});
}

Napi::Value StatsFd::Read(const Napi::CallbackInfo& info) {
  const std::size_t offset = ToSize({info, 0, "offset"});
  const std::span<std::uint8_t> into = ToBytes({info, 1, "into"});
  if (parts_.fd.get() < 0) return Napi::Number::New(info.Env(), parts_.fd.get());
  const ssize_t read = ::pread(parts_.fd.get(), into.data(), into.size(), static_cast<off_t>(offset));
  return Napi::Number::New(info.Env(), static_cast<double>(read < 0 ? -errno : read));
}

void StatsFd::Close(const Napi::CallbackInfo&) {
  parts_.fd.Close();
  parts_.owner.Close();
  parts_.slots.Reset();
}
