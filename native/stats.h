#pragma once

#include "fd.h"
#include "handle.h"
#include "vm.h"

// The statistics of a VM or a vCPU, made by KVM_GET_STATS_FD.
class StatsFd : public Handle<StatsFd> {
 public:
  static constexpr napi_type_tag kTag{0x6b766d2d61726d36, 0x0000000000000007};
  static constexpr Napi::FunctionReference Addon::*kClass = &Addon::stats;
  struct Parts {
    // Destroyed in reverse order: memory outlives the descriptors through which it can be reached.
    Shared<MemorySlots> slots;
    // A duplicate of the VM's or vCPU's descriptor. Linux before 6.5 frees the VM while its statistics are still open,
    // and then reads freed memory.
    Fd owner;
    Fd fd;
  };

  static Napi::Function Define(Napi::Env env);
  explicit StatsFd(const Napi::CallbackInfo& info) : Handle(info), parts_(TakeParts<Parts>(info)) {}

  // The statistics of the VM or vCPU behind `fd`, or -errno as a number.
  static Napi::Value Open(Napi::Env env, int fd, const Shared<MemorySlots>& slots);

 private:
  Napi::Value Read(const Napi::CallbackInfo& info);
  void Close(const Napi::CallbackInfo& info);

  Parts parts_;
};
