#include "vcpu.h"

#include <array>
#include <cerrno>

#include "arguments.h"
#include "attributes.h"
#include "interrupt.h"
#include "kvm_abi.h"
#include "kvm_ioctl.h"
#include "registers.h"

Napi::Function Vcpu::Define(Napi::Env env) {
  return DefineClass(env, "VcpuFd",
                     {
                         InstanceMethod<&Vcpu::Init>("init"),
                         InstanceMethod<&Vcpu::Finalize>("finalize"),
                         InstanceMethod<&Vcpu::RegList>("getRegList"),
                         FastMethod<1, &Vcpu::GetReg>("getOneReg"),
                         FastMethod<2, &Vcpu::SetReg>("setOneReg"),
                         InstanceMethod<&Vcpu::GetRegAtNull>("getOneRegAtNull"),
                         InstanceMethod<&Vcpu::SetRegAtNull>("setOneRegAtNull"),
                         InstanceMethod<&Vcpu::GetRegBatch>("getRegs"),
                         InstanceMethod<&Vcpu::SetRegBatch>("setRegs"),
                         InstanceMethod<&Vcpu::GetMpState>("getMpState"),
                         InstanceMethod<&Vcpu::SetMpState>("setMpState"),
                         InstanceMethod<&Vcpu::GetEvents>("getVcpuEvents"),
                         InstanceMethod<&Vcpu::SetEvents>("setVcpuEvents"),
                         InstanceMethod<&Vcpu::HasAttr>("hasDeviceAttr"),
                         InstanceMethod<&Vcpu::GetAttr>("getDeviceAttr"),
                         InstanceMethod<&Vcpu::SetAttr>("setDeviceAttr"),
                         FastMethod<1, &Vcpu::RunSync>("runSync"),
                         InstanceMethod<&Vcpu::Run>("run"),
                         InstanceMethod<&Vcpu::Kick>("kick"),
                         InstanceMethod<&Vcpu::Close>("close"),
                     });
}

Vcpu::Vcpu(const Napi::CallbackInfo& info) : Handle(info), parts_(TakeParts<Parts>(info)) {
  PrepareInterrupts();
  run_page_.Publish(info.This().As<Napi::Object>(), "runPage", parts_.run);
  if (!run_page_.published()) {
    Napi::Error error = Napi::Error::New(info.Env(), "kvm_run cannot be mapped: this runtime forbids external buffers");
    error.Set("code", "ERR_KVM_NO_EXTERNAL_BUFFERS");
    throw error;
  }
}

template <std::size_t Count, napi_value (Vcpu::*Method)(napi_env, const std::array<napi_value, Count>&)>
Napi::ClassPropertyDescriptor<Vcpu> Vcpu::FastMethod(const char* name) {
  napi_property_descriptor descriptor{};
  descriptor.utf8name = name;
  descriptor.method = [](napi_env env, napi_callback_info info) -> napi_value {
    try {
      std::array<napi_value, Count> arguments;
      std::size_t count = Count;
      napi_value self = nullptr;
      void* vcpu = nullptr;
      if (napi_get_cb_info(env, info, &count, arguments.data(), &self, nullptr) != napi_ok ||
          napi_unwrap(env, self, &vcpu) != napi_ok) {
        throw Napi::TypeError::New(env, "Illegal invocation");
      }
      return (static_cast<Vcpu*>(vcpu)->*Method)(env, arguments);
    } catch (const Napi::Error& error) {
      error.ThrowAsJavaScriptException();
    } catch (const std::exception& error) {
      napi_throw_error(env, nullptr, error.what());
    }
    return nullptr;
  };
  return descriptor;
}

Napi::Value Vcpu::Init(const Napi::CallbackInfo& info) {
  kvm_abi::VcpuInit init{};
  init.target = ToUint32({info, 0, "target"});
  CopyUint32s({info, 1, "features"}, init.features);
  return Napi::Number::New(info.Env(), KvmIoctl(descriptor(), kvm_abi::kArmVcpuInit, &init));
}

Napi::Value Vcpu::Finalize(const Napi::CallbackInfo& info) {
  const std::uint32_t feature = ToUint32({info, 0, "feature"});
  return Napi::Number::New(info.Env(), KvmIoctl(descriptor(), kvm_abi::kArmVcpuFinalize, &feature));
}

napi_value Vcpu::GetReg(napi_env env, const std::array<napi_value, 1>& arguments) {
  return GetOneReg(env, descriptor(), arguments[0]);
}

napi_value Vcpu::SetReg(napi_env env, const std::array<napi_value, 2>& arguments) {
  return SetOneReg(env, descriptor(), arguments[0], arguments[1]);
}

Napi::Value Vcpu::GetRegAtNull(const Napi::CallbackInfo& info) { return GetOneRegAtNull(descriptor(), info); }

Napi::Value Vcpu::SetRegAtNull(const Napi::CallbackInfo& info) { return SetOneRegAtNull(descriptor(), info); }

Napi::Value Vcpu::GetRegBatch(const Napi::CallbackInfo& info) { return GetRegs(descriptor(), info); }

Napi::Value Vcpu::SetRegBatch(const Napi::CallbackInfo& info) { return SetRegs(descriptor(), info); }

Napi::Value Vcpu::RegList(const Napi::CallbackInfo& info) { return GetRegList(descriptor(), info); }

Napi::Value Vcpu::GetMpState(const Napi::CallbackInfo& info) {
  kvm_abi::MpState state{};
  const int result = KvmIoctl(descriptor(), kvm_abi::kGetMpState, &state);
  return Napi::Number::New(info.Env(), result < 0 ? result : static_cast<double>(state.mp_state));
}

Napi::Value Vcpu::SetMpState(const Napi::CallbackInfo& info) {
  const kvm_abi::MpState state{.mp_state = ToUint32({info, 0, "state"})};
  return Napi::Number::New(info.Env(), KvmIoctl(descriptor(), kvm_abi::kSetMpState, &state));
}

Napi::Value Vcpu::GetEvents(const Napi::CallbackInfo& info) {
  const std::span<std::uint8_t> events = ToBytes({info, 0, "events"}, sizeof(kvm_abi::VcpuEvents));
  return Napi::Number::New(info.Env(), KvmIoctl(descriptor(), kvm_abi::kGetVcpuEvents, events.data()));
}

Napi::Value Vcpu::SetEvents(const Napi::CallbackInfo& info) {
  const std::span<std::uint8_t> events = ToBytes({info, 0, "events"}, sizeof(kvm_abi::VcpuEvents));
  return Napi::Number::New(info.Env(), KvmIoctl(descriptor(), kvm_abi::kSetVcpuEvents, events.data()));
}

Napi::Value Vcpu::HasAttr(const Napi::CallbackInfo& info) { return HasDeviceAttr(descriptor(), info); }

Napi::Value Vcpu::GetAttr(const Napi::CallbackInfo& info) { return GetDeviceAttr(descriptor(), info); }

Napi::Value Vcpu::SetAttr(const Napi::CallbackInfo& info) { return SetDeviceAttr(descriptor(), info); }

napi_value Vcpu::RunSync(napi_env env, const std::array<napi_value, 1>& arguments) {
  double timeout = 0;
  if (napi_get_value_double(env, arguments[0], &timeout) != napi_ok) ThrowInvalidType(env, "timeoutMs", "a number");
  if (!(timeout >= 0)) ThrowOutOfRange(env, "timeoutMs", "at least 0");
  napi_value result = nullptr;
  napi_create_int32(env, RunFor(timeout), &result);
  return result;
}

int Vcpu::RunFor(double milliseconds) {
  const int fd = descriptor();
  if (fd < 0) return fd;
  if (milliseconds == 0) return KvmIoctl(fd, kvm_abi::kRun);
  const Deadline deadline(milliseconds, parts_.run->data());
  return deadline.error() != 0 ? deadline.error() : KvmIoctl(fd, kvm_abi::kRun);
}

// Making a thread-safe function or a promise runs the hooks of node:async_hooks, and these may run or close this very vCPU. So
// whatever they can change is looked at after both.
Napi::Value Vcpu::Run(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (parts_.fd.get() >= 0 && thread_ == nullptr) {
    std::unique_ptr<VcpuThread> thread = VcpuThread::Start(env, parts_.fd.get(), parts_.run->data());
    if (parts_.fd.get() >= 0 && thread_ == nullptr) thread_ = std::move(thread);
  }
  const Napi::Promise::Deferred deferred(env);
  const int fd = descriptor();
  if (fd < 0) {
    deferred.Resolve(Napi::Number::New(env, fd));
  } else if (thread_ == nullptr) {
    deferred.Resolve(Napi::Number::New(env, -EAGAIN));
  } else {
    thread_->Run(info.This().As<Napi::Object>(), deferred);
  }
  return deferred.Promise();
}

void Vcpu::Kick(const Napi::CallbackInfo&) {
  if (thread_ != nullptr) thread_->Kick();
}

void Vcpu::Close(const Napi::CallbackInfo& info) {
  if (parts_.fd.get() < 0) return;
  const std::unique_ptr<VcpuThread> thread = std::move(thread_);
  if (thread != nullptr) thread->Halt();
  run_page_.Detach(info.This().As<Napi::Object>(), "runPage");
  parts_.run.Reset();
  parts_.fd.Close();
  parts_.slots.Reset();
  // Last, since it runs hooks, as Run() does: they find a closed vCPU.
  if (thread != nullptr) thread->Close();
}
