#include "affinity.h"
#include "device.h"
#include "event.h"
#include "handle.h"
#include "memory.h"
#include "stats.h"
#include "system.h"
#include "vcpu.h"
#include "vm.h"

namespace {

Napi::Object Initialize(Napi::Env env, Napi::Object exports) {
  auto* const addon = new Addon;
  env.SetInstanceData(addon);
  addon->system = Napi::Persistent(SystemFd::Define(env));
  addon->vm = Napi::Persistent(VmFd::Define(env));
  addon->vcpu = Napi::Persistent(VcpuFd::Define(env));
  addon->device = Napi::Persistent(DeviceFd::Define(env));
  addon->event = Napi::Persistent(EventFd::Define(env));
  addon->stats = Napi::Persistent(StatsFd::Define(env));
  addon->memory = Napi::Persistent(GuestMemoryFd::Define(env));
  exports.Set("getAffinity", Napi::Function::New<GetAffinity>(env, "getAffinity"));
  exports.Set("setAffinity", Napi::Function::New<SetAffinity>(env, "setAffinity"));
  exports.Set("open", Napi::Function::New<SystemFd::Open>(env, "open"));
  return exports;
}

}  // namespace

NODE_API_MODULE(kvm_arm64, Initialize)
