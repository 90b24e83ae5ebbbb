#pragma once

#include "fd.h"
#include "handle.h"
#include "mapping.h"

// Memory to back a guest with. Closing it ends JavaScript's access; VMs that have it in a slot keep it mapped.
class GuestMemoryFd : public Handle<GuestMemoryFd> {
 public:
  static constexpr napi_type_tag kTag{0x6b766d2d61726d36, 0x0000000000000005};
  static constexpr Napi::FunctionReference Addon::*kClass = &Addon::memory;
  struct Parts {
    Shared<Mapping> mapping;
  };

  static Napi::Function Define(Napi::Env env);
  explicit GuestMemoryFd(const Napi::CallbackInfo& info);

  // A memfd of `size` bytes, mapped; empty, with errno set, when that fails.
  static Shared<Mapping> Allocate(std::size_t size);

  // Empty once closed.
  const Shared<Mapping>& mapping() const { return parts_.mapping; }

 private:
  Napi::Value Read(const Napi::CallbackInfo& info);
  Napi::Value Write(const Napi::CallbackInfo& info);
  void Close(const Napi::CallbackInfo& info);
  int Check(std::size_t offset, std::size_t size) const;

  Parts parts_;
  MappedBuffer buffer_;
};
