#include "device.h"

#include "attributes.h"

Napi::Function Device::Define(Napi::Env env) {
  return DefineClass(env, "DeviceFd",
                     {
                         InstanceMethod<&Device::HasAttr>("hasDeviceAttr"),
                         InstanceMethod<&Device::GetAttr>("getDeviceAttr"),
                         InstanceMethod<&Device::SetAttr>("setDeviceAttr"),
                         InstanceMethod<&Device::Close>("close"),
                     });
}

Napi::Value Device::HasAttr(const Napi::CallbackInfo& info) { return HasDeviceAttr(parts_.fd.get(), info); }

Napi::Value Device::GetAttr(const Napi::CallbackInfo& info) { return GetDeviceAttr(parts_.fd.get(), info); }

Napi::Value Device::SetAttr(const Napi::CallbackInfo& info) { return SetDeviceAttr(parts_.fd.get(), info); }

void Device::Close(const Napi::CallbackInfo&) {
  parts_.fd.Close();
  parts_.slots.Reset();
}
