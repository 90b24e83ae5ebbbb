// KVM_{HAS,GET,SET}_DEVICE_ATTR: AttributeFd of lib/backend.ts, which VMs, vCPUs and devices extend.
#pragma once

#include "handle.h"

Napi::Value HasDeviceAttr(int fd, const Napi::CallbackInfo& info);
Napi::Value GetDeviceAttr(int fd, const Napi::CallbackInfo& info);
Napi::Value SetDeviceAttr(int fd, const Napi::CallbackInfo& info);

template <typename T>
class AttributeHandle : public Handle<T> {
 protected:
  using Handle<T>::Handle;

  static typename Handle<T>::Methods WithDeviceAttributes(typename Handle<T>::Methods methods) {
    methods.push_back(Handle<T>::template Request<HasDeviceAttr>("hasDeviceAttr"));
    methods.push_back(Handle<T>::template Request<GetDeviceAttr>("getDeviceAttr"));
    methods.push_back(Handle<T>::template Request<SetDeviceAttr>("setDeviceAttr"));
    return methods;
  }
};
