#include "memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "arguments.h"

Napi::Function GuestMemoryFd::Define(Napi::Env env) {
  return DefineClass(env, "GuestMemoryFd",
                     {
                         InstanceMethod<&GuestMemoryFd::Read>("read"),
                         InstanceMethod<&GuestMemoryFd::Write>("write"),
                         InstanceMethod<&GuestMemoryFd::Close>("close"),
                     });
}

Shared<Mapping> GuestMemoryFd::Allocate(std::size_t size) {
  // The mapping keeps the memory; the descriptor is not needed beyond it.
  const Fd fd(::memfd_create("kvm-arm64", MFD_CLOEXEC));
  if (fd.get() < 0) return {};
  if (::ftruncate(fd.get(), static_cast<off_t>(size)) != 0) return {};
  return Mapping::Map(fd.get(), size);
}

GuestMemoryFd::GuestMemoryFd(const Napi::CallbackInfo& info) : Handle(info), parts_(TakeParts<Parts>(info)) {
  Napi::Object self = info.This().As<Napi::Object>();
  const double size = static_cast<double>(parts_.mapping->size());
  self.DefineProperty(Napi::PropertyDescriptor::Value("size", Napi::Number::New(info.Env(), size), napi_enumerable));
  const auto page_size = static_cast<double>(::sysconf(_SC_PAGESIZE));
  self.DefineProperty(
      Napi::PropertyDescriptor::Value("pageSize", Napi::Number::New(info.Env(), page_size), napi_enumerable));
  buffer_.Publish(self, "buffer", parts_.mapping);
}

int GuestMemoryFd::Check(std::size_t offset, std::size_t size) const {
  if (!parts_.mapping) return -EBADF;
  const std::size_t limit = parts_.mapping->size();
  return offset > limit || size > limit - offset ? -EFAULT : 0;
}

Napi::Value GuestMemoryFd::Read(const Napi::CallbackInfo& info) {
  const std::size_t offset = ToSize({info, 0, "offset"});
  const std::span<std::uint8_t> into = ToBytes({info, 1, "into"});
  const int result = Check(offset, into.size());
  // memmove: the caller's array may lie in this very mapping.
  if (result == 0 && !into.empty()) std::memmove(into.data(), parts_.mapping->data() + offset, into.size());
  return Napi::Number::New(info.Env(), result);
}

Napi::Value GuestMemoryFd::Write(const Napi::CallbackInfo& info) {
  const std::size_t offset = ToSize({info, 0, "offset"});
  const std::span<const std::uint8_t> from = ToBytes({info, 1, "from"});
  const int result = Check(offset, from.size());
  if (result == 0 && !from.empty()) std::memmove(parts_.mapping->data() + offset, from.data(), from.size());
  return Napi::Number::New(info.Env(), result);
}

void GuestMemoryFd::Close(const Napi::CallbackInfo& info) {
  buffer_.Detach(info.This().As<Napi::Object>(), "buffer");
  parts_.mapping.Reset();
}
