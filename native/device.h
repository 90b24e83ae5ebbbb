#pragma once

#include "fd.h"
#include "handle.h"
#include "vm.h"

// A device made by KVM_CREATE_DEVICE.
class Device : public Handle<Device> {
 public:
  static constexpr napi_type_tag kTag{0x6b766d2d61726d36, 0x0000000000000004};
  static constexpr Napi::FunctionReference Addon::*kClass = &Addon::device;
  struct Parts {
    // Destroyed in reverse order: an interrupt translation service keeps its tables in guest memory.
    Shared<MemorySlots> slots;
    Fd fd;
  };

  static Napi::Function Define(Napi::Env env);
  explicit Device(const Napi::CallbackInfo& info) : Handle(info), parts_(TakeParts<Parts>(info)) {}

 private:
  Napi::Value HasAttr(const Napi::CallbackInfo& info);
  Napi::Value GetAttr(const Napi::CallbackInfo& info);
  Napi::Value SetAttr(const Napi::CallbackInfo& info);
  void Close(const Napi::CallbackInfo& info);

  Parts parts_;
};
