// KVM_{HAS,GET,SET}_DEVICE_ATTR, which the descriptors of VMs, vCPUs and devices share.
#pragma once

#include "napi_setup.h"

Napi::Value HasDeviceAttr(int fd, const Napi::CallbackInfo& info);
Napi::Value GetDeviceAttr(int fd, const Napi::CallbackInfo& info);
Napi::Value SetDeviceAttr(int fd, const Napi::CallbackInfo& info);
