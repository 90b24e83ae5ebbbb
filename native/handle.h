// The common base of the addon's classes. Only the addon creates their objects: JavaScript can reach a constructor
// through `object.constructor`, but calling it throws. Classes and methods have the names of lib/backend.ts.
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

#include "napi_setup.h"
#include "shared.h"

// State of one environment (the main thread or a worker): environments share nothing in the addon.
struct Addon {
  Napi::FunctionReference system;
  Napi::FunctionReference vm;
  Napi::FunctionReference vcpu;
  Napi::FunctionReference device;
  Napi::FunctionReference memory;
  Napi::FunctionReference event;
  Napi::FunctionReference stats;
  // What the constructor that Create() is calling builds its object from; null at any other time.
  void* parts = nullptr;
};

// T has `kTag`, a type tag of its own; `kClass`, its place in Addon; and `struct Parts`, what an object is built from.
// One with requests has `descriptor()`: the file descriptor that takes them, or the -errno to answer in its place.
template <typename T>
class Handle : public Napi::ObjectWrap<T> {
 public:
  // Makes the JavaScript object. What `parts` owns is released if that fails.
  template <typename Parts>
  static Napi::Object Create(Napi::Env env, Parts parts) {
    static_assert(std::is_same_v<Parts, typename T::Parts>);
    Addon* const addon = env.GetInstanceData<Addon>();
    addon->parts = &parts;
    // Reset on every way out, even if the constructor is never reached: the next one must not find `parts`.
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
  using Methods = std::vector<Napi::ClassPropertyDescriptor<T>>;

  // A method that is one request to the object's descriptor.
  template <Napi::Value (*Send)(int fd, const Napi::CallbackInfo& info)>
  static Napi::ClassPropertyDescriptor<T> Request(const char* name) {
    return Descriptor(name, [](napi_env env, napi_callback_info raw) -> napi_value {
      return Enter(env, [&]() -> napi_value {
        const Napi::CallbackInfo info(env, raw);
        return Send(Self(env, info.This()).descriptor(), info);
      });
    });
  }

  // Methods called without Napi::CallbackInfo and without napi_unwrap, of which each costs as much as half a short
  // ioctl (npm run bench). They are functions of one object, whatever their receiver is. One that outlives its object
  // throws. An object declares them last: destroyed first, they do not find what is left of it.
  class FastMethods {
   public:
    explicit FastMethods(T* self) : self_(Shared<T*>::Make(self)) {}
    FastMethods(const FastMethods&) = delete;
    FastMethods& operator=(const FastMethods&) = delete;
    ~FastMethods() { *self_ = nullptr; }

    // `Function` is a member function or takes the descriptor.
    template <std::size_t Count, auto Function>
    void Define(Napi::Object object, const char* name) {
      const Napi::Env env = object.Env();
      auto share = std::make_unique<Shared<T*>>(self_);
      napi_value function = nullptr;
      napi_status status =
          napi_create_function(env, name, NAPI_AUTO_LENGTH, Call<Count, Function>, share.get(), &function);
      if (status == napi_ok) status = napi_add_finalizer(env, function, share.get(), Release, nullptr, nullptr);
      if (status != napi_ok) throw Napi::Error::New(env);
      static_cast<void>(share.release());
      // Configurable, so that a proxy may give another function of this name.
      object.DefineProperty(Napi::PropertyDescriptor::Value(name, function, napi_configurable));
    }

   private:
    template <std::size_t Count, auto Function>
    static napi_value Call(napi_env env, napi_callback_info raw) {
      return Enter(env, [&]() -> napi_value {
        std::array<napi_value, Count> arguments;
        std::size_t count = Count;
        void* share = nullptr;
        if (napi_get_cb_info(env, raw, &count, arguments.data(), nullptr, &share) != napi_ok)
          ThrowIllegalInvocation(env);
        T* const self = **static_cast<Shared<T*>*>(share);
        if (self == nullptr) ThrowIllegalInvocation(env);
        if constexpr (std::is_member_function_pointer_v<decltype(Function)>) {
          return (self->*Function)(env, arguments);
        } else {
          return Function(env, self->descriptor(), arguments);
        }
      });
    }

    static void Release(napi_env, void* share, void*) { delete static_cast<Shared<T*>*>(share); }

    Shared<T*> self_;
  };

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

 private:
  static Napi::ClassPropertyDescriptor<T> Descriptor(const char* name, napi_callback method) {
    napi_property_descriptor descriptor{};
    descriptor.utf8name = name;
    descriptor.method = method;
    return descriptor;
  }

  // Runs the body of a method. No C++ exception may leave it: each becomes one of JavaScript's.
  template <typename Body>
  static napi_value Enter(napi_env env, Body body) {
    try {
      return body();
    } catch (const Napi::Error& error) {
      error.ThrowAsJavaScriptException();
    } catch (const std::exception& error) {
      napi_throw_error(env, nullptr, error.what());
    } catch (...) {
      napi_throw_error(env, nullptr, "unknown C++ exception");
    }
    return nullptr;
  }

  // V8 itself refuses a receiver that the class did not make.
  static T& Self(napi_env env, napi_value receiver) {
    void* self = nullptr;
    if (napi_unwrap(env, receiver, &self) != napi_ok) ThrowIllegalInvocation(env);
    return *static_cast<T*>(self);
  }

  [[noreturn]] static void ThrowIllegalInvocation(napi_env env) {
    throw Napi::TypeError::New(env, "Illegal invocation");
  }
};
