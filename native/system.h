#pragma once

#include "fd.h"
#include "handle.h"

// /dev/kvm.
class SystemFd : public Handle<SystemFd> {
 public:
  static constexpr napi_type_tag kTag{0x6b766d2d61726d36, 0x0000000000000001};
  static constexpr Napi::FunctionReference Addon::*kClass = &Addon::system;
  struct Parts {
    Fd fd;
  };

  static Napi::Function Define(Napi::Env env);
  explicit SystemFd(const Napi::CallbackInfo& info) : Handle(info), parts_(TakeParts<Parts>(info)) {}

  int descriptor() const { return parts_.fd.get(); }

  // The addon's export: a System, or -errno.
  static Napi::Value Open(const Napi::CallbackInfo& info);

 private:
  Napi::Value GetApiVersion(const Napi::CallbackInfo& info);
  Napi::Value CheckExtension(const Napi::CallbackInfo& info);
  Napi::Value GetVcpuMmapSize(const Napi::CallbackInfo& info);
  Napi::Value CreateVm(const Napi::CallbackInfo& info);
  Napi::Value CreateEvent(const Napi::CallbackInfo& info);
  Napi::Value CreateMemory(const Napi::CallbackInfo& info);
  void Close(const Napi::CallbackInfo& info);

  Parts parts_;
};
