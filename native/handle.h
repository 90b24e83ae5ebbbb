// What the classes of the addon have in common. Their objects are made by the addon only: JavaScript can reach a
// constructor through `object.constructor`, but calling it throws.
#pragma once

#include <type_traits>
#include <utility>

#include "napi_setup.h"

// State of one environment (the main thread or a worker): nothing in the addon is shared between environments.
struct Addon {
  Napi::FunctionReference system;
  Napi::FunctionReference vm;
  Napi::FunctionReference vcpu;
  Napi::FunctionReference device;
  Napi::FunctionReference memory;
  // What the constructor that Create() is calling builds its object from; null at any other time.
  void* parts = nullptr;
};

// T has `kTag`, a type tag of its own; `kClass`, its place in Addon; and `struct Parts`, what an object is built from.
template <typename T>
class Handle : public Napi::ObjectWrap<T> {
 public:
  // Makes the JavaScript object. What `parts` owns is released if that fails.
  template <typename Parts>
  static Napi::Object Create(Napi::Env env, Parts parts) {
    static_assert(std::is_same_v<Parts, typename T::Parts>);
    Addon* const addon = env.GetInstanceData<Addon>();
    addon->parts = &parts;
    // However this ends, and even if the constructor is never reached: the next one must not find `parts`.
    struct Forget {
      Addon* addon;
      ~Forget() { addon->parts = nullptr; }
    } const forget{addon};
    return (addon->*T::kClass).New(std::initializer_list<napi_value>{});
  }

  // The T behind an argument, or null when it is something else. napi_unwrap does not look at the class: only the tag
  // keeps an object of another class, or of another addon, from being taken for a T.
  static T* From(Napi::Value value) {
    if (!value.IsObject()) return nullptr;
    const Napi::Object object = value.As<Napi::Object>();
    return object.CheckTypeTag(&T::kTag) ? T::Unwrap(object) : nullptr;
  }

 protected:
  explicit Handle(const Napi::CallbackInfo& info) : Napi::ObjectWrap<T>(info) {
    info.This().template As<Napi::Object>().TypeTag(&T::kTag);
  }

  template <typename Parts>
  static Parts TakeParts(const Napi::CallbackInfo& info) {
    Addon* const addon = info.Env().template GetInstanceData<Addon>();
    void* const parts = std::exchange(addon->parts, nullptr);
    if (parts == nullptr) {
      Napi::TypeError error = Napi::TypeError::New(info.Env(), "Illegal constructor");
      error.Set("code", "ERR_ILLEGAL_CONSTRUCTOR");
      throw error;
    }
    return std::move(*static_cast<Parts*>(parts));
  }
};
