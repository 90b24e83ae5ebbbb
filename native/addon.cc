#include "device.h"
#include "handle.h"
#include "memory.h"
#include "system.h"
#include "vcpu.h"
#include "vm.h"

namespace {

Napi::Object Initialize(Napi::Env env, Napi::Object exports) {
  auto* const addon = new Addon;
  env.SetInstanceData(addon);
  addon->system = Napi::Persistent(System::Define(env));
  addon->vm = Napi::Persistent(Vm::Define(env));
  addon->vcpu = Napi::Persistent(Vcpu::Define(env));
  addon->device = Napi::Persistent(Device::Define(env));
  addon->memory = Napi::Persistent(Memory::Define(env));
  exports.Set("open", Napi::Function::New<System::Open>(env, "open"));
  return exports;
}

}  // namespace

NODE_API_MODULE(kvm_arm64, Initialize)
