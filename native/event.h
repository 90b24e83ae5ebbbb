#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <thread>

#include "fd.h"
#include "handle.h"

// The thread on which wait() of an event blocks. It follows the four rules of vcpu_thread.h. The function keeps the
// event loop alive only while a wait is in flight, and a wait in flight keeps the event from being collected.
class EventThread {
 public:
  // Starts a thread that waits for the eventfd `fd`, which stays open until the EventThread is destroyed. Returns 0, or
  // -errno: -EAGAIN if no thread can be created, and what eventfd(2) fails with.
  static int Start(Napi::Env env, int fd, std::unique_ptr<EventThread>& started);
  EventThread(const EventThread&) = delete;
  EventThread& operator=(const EventThread&) = delete;
  ~EventThread();

  // All of these are called on the JavaScript thread.
  bool in_flight() const { return deferred_.has_value(); }
  // `self` is the event's object, and `deferred` what the wait settles. Not while a wait is in flight.
  void Wait(Napi::Object self, Napi::Promise::Deferred deferred);
  // Stops the thread; only Close() settles a wait in flight.
  void Halt();
  // Stops the thread and settles a wait in flight with -EINTR.
  void Close();

 private:
  enum class State : std::uint32_t { kParked, kWaiting, kHalting };

  EventThread(Napi::Env env, int fd, Fd stop);
  void Main();
  // Takes the count once there is one; 0 if the thread is to stop.
  std::uint64_t Await();
  void Settle(Napi::Value outcome);
  static void OnReport(Napi::Env env, Napi::Function callback, EventThread* thread, void* data);
  static void OnEnvironmentEnd(void* thread);

  using Report = Napi::TypedThreadSafeFunction<EventThread, void, &EventThread::OnReport>;

  const Napi::Env env_;
  const int fd_;
  // An eventfd that ends the wait for the other.
  const Fd stop_;

  // Touched by the JavaScript thread alone.
  std::optional<Napi::Promise::Deferred> deferred_;
  Napi::ObjectReference self_;
  bool halted_ = false;

  Report report_;
  // What the wait took, set before it is reported.
  std::uint64_t count_ = 0;
  std::atomic<State> state_{State::kParked};
  std::thread thread_;
};

// An eventfd, which KVM and this process add to.
class EventFd : public Handle<EventFd> {
 public:
  static constexpr napi_type_tag kTag{0x6b766d2d61726d36, 0x0000000000000006};
  static constexpr Napi::FunctionReference Addon::*kClass = &Addon::event;
  struct Parts {
    Fd fd;
  };

  static Napi::Function Define(Napi::Env env);
  explicit EventFd(const Napi::CallbackInfo& info) : Handle(info), parts_(TakeParts<Parts>(info)) {}

  // An eventfd whose reads and writes do not block; without a descriptor, and with errno set, when that fails.
  static Fd Make();

  int descriptor() const { return parts_.fd.get(); }

 private:
  Napi::Value Signal(const Napi::CallbackInfo& info);
  Napi::Value Take(const Napi::CallbackInfo& info);
  Napi::Value Wait(const Napi::CallbackInfo& info);
  void Close(const Napi::CallbackInfo& info);

  Parts parts_;
  // Made by the first wait(). Destroyed before the descriptor, which it uses.
  std::unique_ptr<EventThread> thread_;
};
