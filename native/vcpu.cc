#include "vcpu.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <iterator>

#include "arguments.h"
#include "interrupt.h"
#include "kvm_abi.h"
#include "kvm_ioctl.h"
#include "registers.h"
#include "stats.h"

Napi::Function VcpuFd::Define(Napi::Env env) {
  return DefineClass(env, "VcpuFd",
                     WithDeviceAttributes({
                         InstanceMethod<&VcpuFd::Init>("init"),
                         InstanceMethod<&VcpuFd::Finalize>("finalize"),
                         Request<GetRegList>("getRegList"),
                         Request<GetOneRegAtNull>("getOneRegAtNull"),
                         Request<SetOneRegAtNull>("setOneRegAtNull"),
                         Request<GetRegs>("getRegs"),
                         Request<SetRegs>("setRegs"),
                         InstanceMethod<&VcpuFd::GetMpState>("getMpState"),
                         InstanceMethod<&VcpuFd::SetMpState>("setMpState"),
                         InstanceMethod<&VcpuFd::GetVcpuEvents>("getVcpuEvents"),
                         InstanceMethod<&VcpuFd::SetVcpuEvents>("setVcpuEvents"),
                         InstanceMethod<&VcpuFd::SetGuestDebug>("setGuestDebug"),
                         InstanceMethod<&VcpuFd::TakeCoalesced>("takeCoalesced"),
                         InstanceMethod<&VcpuFd::TakeDirty>("takeDirty"),
                         InstanceMethod<&VcpuFd::GetStatsFd>("getStatsFd"),
                         InstanceMethod<&VcpuFd::Run>("run"),
                         InstanceMethod<&VcpuFd::Kick>("kick"),
                         InstanceMethod<&VcpuFd::Close>("close"),
                     }));
}

VcpuFd::VcpuFd(const Napi::CallbackInfo& info)
    : AttributeHandle(info), parts_(TakeParts<Parts>(info)), fast_methods_(this) {
  PrepareInterrupts();
  const Napi::Object self = info.This().As<Napi::Object>();
  fast_methods_.Define<1, GetOneReg>(self, "getOneReg");
  fast_methods_.Define<2, SetOneReg>(self, "setOneReg");
  fast_methods_.Define<1, &VcpuFd::RunSync>(self, "runSync");
  run_page_.Publish(self, "runPage", parts_.run);
  if (!run_page_.published()) {
    Napi::Error error = Napi::Error::New(info.Env(), "kvm_run cannot be mapped: this runtime forbids external buffers");
    error.Set("code", "ERR_KVM_NO_EXTERNAL_BUFFERS");
    throw error;
  }
}

Napi::Value VcpuFd::Init(const Napi::CallbackInfo& info) {
  kvm_abi::VcpuInit init{};
  init.target = ToUint32({info, 0, "target"});
  CopyUint32s({info, 1, "features"}, init.features);
  return Napi::Number::New(info.Env(), KvmIoctl(descriptor(), kvm_abi::kArmVcpuInit, &init));
}

Napi::Value VcpuFd::Finalize(const Napi::CallbackInfo& info) {
  const std::uint32_t feature = ToUint32({info, 0, "feature"});
  return Napi::Number::New(info.Env(), KvmIoctl(descriptor(), kvm_abi::kArmVcpuFinalize, &feature));
}

Napi::Value VcpuFd::GetMpState(const Napi::CallbackInfo& info) {
  kvm_abi::MpState state{};
  const int result = KvmIoctl(descriptor(), kvm_abi::kGetMpState, &state);
  return Napi::Number::New(info.Env(), result < 0 ? result : static_cast<double>(state.mp_state));
}

Napi::Value VcpuFd::SetMpState(const Napi::CallbackInfo& info) {
  const kvm_abi::MpState state{.mp_state = ToUint32({info, 0, "state"})};
  return Napi::Number::New(info.Env(), KvmIoctl(descriptor(), kvm_abi::kSetMpState, &state));
}

Napi::Value VcpuFd::GetVcpuEvents(const Napi::CallbackInfo& info) {
  const std::span<std::uint8_t> events = ToBytes({info, 0, "events"}, sizeof(kvm_abi::VcpuEvents));
  return Napi::Number::New(info.Env(), KvmIoctl(descriptor(), kvm_abi::kGetVcpuEvents, events.data()));
}

Napi::Value VcpuFd::SetVcpuEvents(const Napi::CallbackInfo& info) {
  const std::span<std::uint8_t> events = ToBytes({info, 0, "events"}, sizeof(kvm_abi::VcpuEvents));
  return Napi::Number::New(info.Env(), KvmIoctl(descriptor(), kvm_abi::kSetVcpuEvents, events.data()));
}

Napi::Value VcpuFd::SetGuestDebug(const Napi::CallbackInfo& info) {
  kvm_abi::GuestDebug debug{};
  debug.control = ToUint32({info, 0, "control"});
  const std::span<const std::uint64_t> registers = ToUint64s({info, 1, "registers"}, std::size(debug.registers));
  std::copy_n(registers.begin(), std::size(debug.registers), debug.registers);
  return Napi::Number::New(info.Env(), KvmIoctl(descriptor(), kvm_abi::kSetGuestDebug, &debug));
}

// No ioctl: also while a run is in flight.
Napi::Value VcpuFd::TakeCoalesced(const Napi::CallbackInfo& info) {
  const std::span<std::uint64_t> entries = ToUint64s({info, 0, "entries"}, kWordsOfCoalesced);
  if (!parts_.run) return Napi::Number::New(info.Env(), -EBADF);
  return Napi::Number::New(info.Env(), TakeCoalescedWrites(*parts_.run, entries));
}

// No ioctl either.
Napi::Value VcpuFd::TakeDirty(const Napi::CallbackInfo& info) {
  const std::span<std::uint64_t> entries = ToUint64s({info, 0, "entries"}, kWordsOfDirty);
  return Napi::Number::New(info.Env(), parts_.run ? parts_.ring.Take(entries) : -EBADF);
}

Napi::Value VcpuFd::GetStatsFd(const Napi::CallbackInfo& info) {
  return StatsFd::Open(info.Env(), descriptor(), parts_.slots);
}

napi_value VcpuFd::RunSync(napi_env env, const std::array<napi_value, 1>& arguments) {
  double timeout = 0;
  if (napi_get_value_double(env, arguments[0], &timeout) != napi_ok) ThrowInvalidType(env, "timeoutMs", "a number");
  if (!(timeout >= 0)) ThrowOutOfRange(env, "timeoutMs", "at least 0");
  napi_value result = nullptr;
  napi_create_int32(env, RunFor(timeout), &result);
  return result;
}

int VcpuFd::RunFor(double milliseconds) {
  const int fd = descriptor();
  if (fd < 0) return fd;
  // Only a vCPU that has run on its thread can have been kicked.
  const auto run = [&] {
    if (thread_ != nullptr) return thread_->RunHere();
    int result;
    do {
      result = KvmIoctl(fd, kvm_abi::kRun);
    } while (result == 0 && parts_.answers->Try(parts_.run->data()) != MmioAnswers::Answer::kNone);
    return result;
  };
  if (milliseconds == 0) return run();
  const Deadline deadline(milliseconds, parts_.run->data());
  return deadline.error() != 0 ? deadline.error() : run();
}

// Making a thread-safe function or a promise runs the hooks of node:async_hooks, and these may run or close this very
// vCPU. So everything they can change is checked after both.
Napi::Value VcpuFd::Run(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (parts_.fd.get() >= 0 && thread_ == nullptr) {
    std::unique_ptr<VcpuThread> thread = VcpuThread::Start(env, parts_.fd.get(), parts_.run->data(), *parts_.answers);
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

void VcpuFd::Kick(const Napi::CallbackInfo&) {
  if (thread_ != nullptr) thread_->Kick();
}

void VcpuFd::Close(const Napi::CallbackInfo& info) {
  if (parts_.fd.get() < 0) return;
  const std::unique_ptr<VcpuThread> thread = std::move(thread_);
  if (thread != nullptr) thread->Halt();
  // A wake-up that was on its way through the thread is lost.
  parts_.answers->ForgetWake();
  run_page_.Detach(info.This().As<Napi::Object>(), "runPage");
  parts_.run.Reset();
  parts_.ring.Close();
  parts_.fd.Close();
  parts_.slots.Reset();
  // Last, since it runs hooks, as Run() does: the hooks then find a closed vCPU.
  if (thread != nullptr) thread->Close();
}
