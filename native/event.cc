#include "event.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>
#include <utility>

#include "arguments.h"
#include "interrupt.h"

namespace {

// The result of a read or write of an eventfd's eight bytes: 0 or -errno.
int Outcome(ssize_t transferred) { return transferred == sizeof(std::uint64_t) ? 0 : -errno; }

}  // namespace

int EventThread::Start(Napi::Env env, int fd, std::unique_ptr<EventThread>& started) {
  Fd stop = EventFd::Make();
  if (stop.get() < 0) return -errno;
  std::unique_ptr<EventThread> thread(new EventThread(env, fd, std::move(stop)));
  try {
    thread->thread_ = std::thread(&EventThread::Main, thread.get());
  } catch (const std::system_error& error) {
    thread->report_.Release();
    return -error.code().value();
  }
  started = std::move(thread);
  return 0;
}

EventThread::EventThread(Napi::Env env, int fd, Fd stop) : env_(env), fd_(fd), stop_(std::move(stop)) {
  report_ = Report::New(env, "kvm-arm64 event", 0, 2, this);
  report_.Unref(env);
  napi_add_env_cleanup_hook(env, OnEnvironmentEnd, this);
}

EventThread::~EventThread() { Halt(); }

void EventThread::Wait(Napi::Object self, Napi::Promise::Deferred deferred) {
  deferred_ = deferred;
  self_ = Napi::Persistent(self);
  report_.Ref(env_);
  state_.store(State::kWaiting);
  state_.notify_one();
}

void EventThread::Halt() {
  if (std::exchange(halted_, true)) return;
  napi_remove_env_cleanup_hook(env_, OnEnvironmentEnd, this);
  report_.Abort();
  if (!thread_.joinable()) return;
  state_.store(State::kHalting);
  state_.notify_one();
  // Never full: nothing else is ever added.
  const std::uint64_t one = 1;
  static_cast<void>(::write(stop_.get(), &one, sizeof(one)) == sizeof(one));
  thread_.join();
}

void EventThread::Close() {
  Halt();
  if (in_flight()) Settle(Napi::Number::New(env_, -EINTR));
}

void EventThread::Settle(Napi::Value outcome) {
  const Napi::Promise::Deferred deferred = *std::exchange(deferred_, std::nullopt);
  self_.Reset();
  deferred.Resolve(outcome);
}

void EventThread::OnReport(Napi::Env env, Napi::Function, EventThread* thread, void*) {
  if (static_cast<napi_env>(env) == nullptr) return;
  thread->report_.Unref(env);
  thread->Settle(Napi::BigInt::New(env, thread->count_));
}

void EventThread::OnEnvironmentEnd(void* thread) { static_cast<EventThread*>(thread)->Halt(); }

void EventThread::Main() {
  ::prctl(PR_SET_NAME, "kvm-event");
  BlockOtherSignals();
  for (;;) {
    state_.wait(State::kParked);
    if (state_.load() == State::kHalting) break;
    const std::uint64_t count = Await();
    if (count == 0) break;
    count_ = count;
    State expected = State::kWaiting;
    if (!state_.compare_exchange_strong(expected, State::kParked)) break;
    // After this answer the function must not be released here any more.
    if (report_.NonBlockingCall() == napi_closing) return;
  }
  report_.Release();
}

std::uint64_t EventThread::Await() {
  for (;;) {
    pollfd files[] = {{.fd = stop_.get(), .events = POLLIN, .revents = 0}, {.fd = fd_, .events = POLLIN, .revents = 0}};
    if (::poll(files, 2, -1) < 0) continue;
    if (files[0].revents != 0) return 0;
    std::uint64_t count = 0;
    // It may be gone: take() can be called while a wait is in flight.
    if (::read(fd_, &count, sizeof(count)) == sizeof(count)) return count;
  }
}

Napi::Function EventFd::Define(Napi::Env env) {
  return DefineClass(env, "EventFd",
                     {
                         InstanceMethod<&EventFd::Signal>("signal"),
                         InstanceMethod<&EventFd::Take>("take"),
                         InstanceMethod<&EventFd::Wait>("wait"),
                         InstanceMethod<&EventFd::Close>("close"),
                     });
}

Fd EventFd::Make() {
  const int fd = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  return fd < 0 ? Fd() : Fd(fd);
}

Napi::Value EventFd::Signal(const Napi::CallbackInfo& info) {
  const std::uint64_t count = ToUint64({info, 0, "count"});
  if (descriptor() < 0) return Napi::Number::New(info.Env(), descriptor());
  return Napi::Number::New(info.Env(), Outcome(::write(descriptor(), &count, sizeof(count))));
}

Napi::Value EventFd::Take(const Napi::CallbackInfo& info) {
  if (descriptor() < 0) return Napi::Number::New(info.Env(), descriptor());
  std::uint64_t count = 0;
  const int outcome = Outcome(::read(descriptor(), &count, sizeof(count)));
  if (outcome < 0) return Napi::Number::New(info.Env(), outcome);
  return Napi::BigInt::New(info.Env(), count);
}

// As in VcpuFd::Run(), hooks of node:async_hooks may wait for or close this very event.
Napi::Value EventFd::Wait(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  int failure = 0;
  if (descriptor() >= 0 && thread_ == nullptr) {
    std::unique_ptr<EventThread> thread;
    failure = EventThread::Start(env, descriptor(), thread);
    if (descriptor() >= 0 && thread_ == nullptr) thread_ = std::move(thread);
  }
  const Napi::Promise::Deferred deferred(env);
  if (descriptor() < 0) {
    deferred.Resolve(Napi::Number::New(env, descriptor()));
  } else if (thread_ == nullptr) {
    deferred.Resolve(Napi::Number::New(env, failure));
  } else if (thread_->in_flight()) {
    deferred.Resolve(Napi::Number::New(env, -EBUSY));
  } else {
    thread_->Wait(info.This().As<Napi::Object>(), deferred);
  }
  return deferred.Promise();
}

void EventFd::Close(const Napi::CallbackInfo&) {
  if (descriptor() < 0) return;
  const std::unique_ptr<EventThread> thread = std::move(thread_);
  if (thread != nullptr) thread->Halt();
  parts_.fd.Close();
  // Last, since it runs hooks: they then find a closed event.
  if (thread != nullptr) thread->Close();
}
