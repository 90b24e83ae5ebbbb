#include "device.h"

Napi::Function DeviceFd::Define(Napi::Env env) {
  return DefineClass(env, "DeviceFd", WithDeviceAttributes({InstanceMethod<&DeviceFd::Close>("close")}));
}

void DeviceFd::Close(const Napi::CallbackInfo&) {
  parts_.fd.Close();
  parts_.slots.Reset();
}
