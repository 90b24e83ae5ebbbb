#pragma once

#include <array>
#include <cerrno>
#include <memory>

#include "attributes.h"
#include "fd.h"
#include "mapping.h"
#include "rings.h"
#include "vcpu_thread.h"
#include "vm.h"

class VcpuFd : public AttributeHandle<VcpuFd> {
 public:
  static constexpr napi_type_tag kTag{0x6b766d2d61726d36, 0x0000000000000003};
  static constexpr Napi::FunctionReference Addon::*kClass = &Addon::vcpu;
  struct Parts {
    // Destroyed in reverse order: memory outlives the descriptor through which it can be reached.
    Shared<MemorySlots> slots;
    Shared<MmioAnswers> answers;
    Shared<Mapping> run;
    DirtyRing ring;
    Fd fd;
  };

  static Napi::Function Define(Napi::Env env);
  explicit VcpuFd(const Napi::CallbackInfo& info);

  // KVM makes a request to a vCPU wait for the end of its KVM_RUN, and the thread that would wait here is the only one
  // that can end it: so such a request fails with -EBUSY instead.
  int descriptor() const { return thread_ != nullptr && thread_->in_flight() ? -EBUSY : parts_.fd.get(); }

 private:
  Napi::Value Init(const Napi::CallbackInfo& info);
  Napi::Value Finalize(const Napi::CallbackInfo& info);
  Napi::Value GetMpState(const Napi::CallbackInfo& info);
  Napi::Value SetMpState(const Napi::CallbackInfo& info);
  Napi::Value GetVcpuEvents(const Napi::CallbackInfo& info);
  Napi::Value SetGuestDebug(const Napi::CallbackInfo& info);
  Napi::Value SetVcpuEvents(const Napi::CallbackInfo& info);
  Napi::Value TakeCoalesced(const Napi::CallbackInfo& info);
  Napi::Value TakeDirty(const Napi::CallbackInfo& info);
  Napi::Value GetStatsFd(const Napi::CallbackInfo& info);
  napi_value RunSync(napi_env env, const std::array<napi_value, 1>& arguments);
  int RunFor(double milliseconds);
  Napi::Value Run(const Napi::CallbackInfo& info);
  void Kick(const Napi::CallbackInfo& info);
  void Close(const Napi::CallbackInfo& info);

  Parts parts_;
  MappedBuffer run_page_;
  // Made by the first run(). Destroyed before the descriptor and the mapping, which it uses.
  std::unique_ptr<VcpuThread> thread_;
  FastMethods fast_methods_;
};
