#pragma once

#include "attributes.h"
#include "fd.h"
#include "vm.h"

// A device made by KVM_CREATE_DEVICE.
class DeviceFd : public AttributeHandle<DeviceFd> {
 public:
  static constexpr napi_type_tag kTag{0x6b766d2d61726d36, 0x0000000000000004};
  static constexpr Napi::FunctionReference Addon::*kClass = &Addon::device;
  struct Parts {
    // Destroyed in reverse order: an interrupt translation service keeps its tables in guest memory.
    Shared<MemorySlots> slots;
    Fd fd;
  };

  static Napi::Function Define(Napi::Env env);
  explicit DeviceFd(const Napi::CallbackInfo& info) : AttributeHandle(info), parts_(TakeParts<Parts>(info)) {}

  int descriptor() const { return parts_.fd.get(); }

 private:
  void Close(const Napi::CallbackInfo& info);

  Parts parts_;
};
