#pragma once

#include <array>
#include <cerrno>
#include <memory>

#include "fd.h"
#include "handle.h"
#include "mapping.h"
#include "vcpu_thread.h"
#include "vm.h"

class Vcpu : public Handle<Vcpu> {
 public:
  static constexpr napi_type_tag kTag{0x6b766d2d61726d36, 0x0000000000000003};
  static constexpr Napi::FunctionReference Addon::*kClass = &Addon::vcpu;
  struct Parts {
    // Destroyed in reverse order: memory outlives the descriptor through which it can be reached.
    Shared<MemorySlots> slots;
    Shared<Mapping> run;
    Fd fd;
  };

  static Napi::Function Define(Napi::Env env);
  explicit Vcpu(const Napi::CallbackInfo& info);

 private:
  // What every request goes to. KVM lets a request to a vCPU wait for the end of its KVM_RUN, and the thread that
  // would wait here is the only one that can end it: so it is answered instead.
  int descriptor() const { return thread_ != nullptr && thread_->in_flight() ? -EBUSY : parts_.fd.get(); }

  // A method called without node-addon-api's wrapper, which costs as much as a short ioctl. V8 itself refuses a `this`
  // that this class did not make.
  template <std::size_t Count, napi_value (Vcpu::*Method)(napi_env, const std::array<napi_value, Count>&)>
  static Napi::ClassPropertyDescriptor<Vcpu> FastMethod(const char* name);

  Napi::Value Init(const Napi::CallbackInfo& info);
  Napi::Value Finalize(const Napi::CallbackInfo& info);
  Napi::Value RegList(const Napi::CallbackInfo& info);
  napi_value GetReg(napi_env env, const std::array<napi_value, 1>& arguments);
  napi_value SetReg(napi_env env, const std::array<napi_value, 2>& arguments);
  Napi::Value GetRegAtNull(const Napi::CallbackInfo& info);
  Napi::Value SetRegAtNull(const Napi::CallbackInfo& info);
  Napi::Value GetRegBatch(const Napi::CallbackInfo& info);
  Napi::Value SetRegBatch(const Napi::CallbackInfo& info);
  Napi::Value GetMpState(const Napi::CallbackInfo& info);
  Napi::Value SetMpState(const Napi::CallbackInfo& info);
  Napi::Value GetEvents(const Napi::CallbackInfo& info);
  Napi::Value SetEvents(const Napi::CallbackInfo& info);
  Napi::Value HasAttr(const Napi::CallbackInfo& info);
  Napi::Value GetAttr(const Napi::CallbackInfo& info);
  Napi::Value SetAttr(const Napi::CallbackInfo& info);
  napi_value RunSync(napi_env env, const std::array<napi_value, 1>& arguments);
  int RunFor(double milliseconds);
  Napi::Value Run(const Napi::CallbackInfo& info);
  void Kick(const Napi::CallbackInfo& info);
  void Close(const Napi::CallbackInfo& info);

  Parts parts_;
  MappedBuffer run_page_;
  // Made by the first run(). Declared last, destroyed first: it uses the descriptor and the mapping.
  std::unique_ptr<VcpuThread> thread_;
};
