#include "vcpu_thread.h"

#include <sys/prctl.h>

#include <cerrno>
#include <system_error>
#include <utility>

#include "interrupt.h"
#include "kvm_abi.h"
#include "kvm_ioctl.h"

std::unique_ptr<VcpuThread> VcpuThread::Start(Napi::Env env, int fd, std::uint8_t* run, MmioAnswers& answers) {
  std::unique_ptr<VcpuThread> thread(new VcpuThread(env, fd, run, answers));
  try {
    thread->thread_ = std::thread(&VcpuThread::Main, thread.get());
  } catch (const std::system_error&) {
    thread->report_.Release();
    return nullptr;
  }
  // From here on Kick() can find the thread to signal.
  thread->thread_id_.wait(0);
  return thread;
}

VcpuThread::VcpuThread(Napi::Env env, int fd, std::uint8_t* run, MmioAnswers& answers)
    : env_(env), fd_(fd), run_(run), answers_(answers) {
  report_ = Report::New(env, "kvm-arm64 vcpu", 0, 2, this);
  report_.Unref(env);
  napi_add_env_cleanup_hook(env, OnEnvironmentEnd, this);
}

VcpuThread::~VcpuThread() { Halt(); }

void VcpuThread::Run(Napi::Object self, Napi::Promise::Deferred deferred) {
  deferred_ = deferred;
  self_ = Napi::Persistent(self);
  report_.Ref(env_);
  {
    const std::lock_guard lock(mutex_);
    BeginRun();
    state_.store(State::kRunning);
  }
  state_.notify_one();
}

int VcpuThread::RunHere() {
  const std::lock_guard lock(mutex_);
  BeginRun();
  int result;
  do {
    result = KvmIoctl(fd_, kvm_abi::kRun);
  } while (result == 0 && answers_.Try(run_) != MmioAnswers::Answer::kNone);
  EndRun(result);
  return result;
}

void VcpuThread::Kick() {
  if (!in_flight()) return;
  const std::lock_guard lock(mutex_);
  if (state_.load() == State::kRunning) {
    MarkKicked();
    Interrupt(thread_id_.load());
  } else if (result_ != -EINTR) {
    kick_is_due_ = true;
  }
}

void VcpuThread::BeginRun() {
  // A run that ends because of JavaScript's own flag does not consume the kick.
  if (!ImmediateExit(run_) && std::exchange(kick_is_due_, false)) MarkKicked();
}

void VcpuThread::MarkKicked() {
  kicked_ = true;
  // A flag that JavaScript has set must not be cleared here.
  if (ImmediateExit(run_)) return;
  flag_is_ours_ = true;
  SetImmediateExit(run_, true);
}

void VcpuThread::EndRun(int result) {
  if (std::exchange(flag_is_ours_, false)) SetImmediateExit(run_, false);
  if (std::exchange(kicked_, false) && result != -EINTR) kick_is_due_ = true;
}

void VcpuThread::Close() {
  Halt();
  if (in_flight()) Settle(-EINTR);
}

void VcpuThread::Halt() {
  if (std::exchange(halted_, true)) return;
  napi_remove_env_cleanup_hook(env_, OnEnvironmentEnd, this);
  report_.Abort();
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    if (state_.exchange(State::kHalting) == State::kRunning) {
      SetImmediateExit(run_, true);
      Interrupt(thread_id_.load());
    }
  }
  state_.notify_one();
  thread_.join();
}

void VcpuThread::Settle(int result) {
  const Napi::Promise::Deferred deferred = *std::exchange(deferred_, std::nullopt);
  self_.Reset();
  deferred.Resolve(Napi::Number::New(env_, result));
}

// What a report is about: the end of a run without data, and with this a log to be taken.
char posted_report;

void VcpuThread::TellPosted() {
  // Settled, or closed, since the write: whoever awaits the run takes the log.
  if (!in_flight()) return;
  const Napi::Value listener = self_.Value().Get("onPosted");
  if (listener.IsFunction()) listener.As<Napi::Function>().Call(self_.Value(), std::initializer_list<napi_value>{});
}

void VcpuThread::OnReport(Napi::Env env, Napi::Function, VcpuThread* thread, void* data) {
  if (static_cast<napi_env>(env) == nullptr) return;
  if (data == &posted_report) {
    thread->TellPosted();
    return;
  }
  thread->report_.Unref(env);
  thread->Settle(thread->result_);
}

void VcpuThread::OnEnvironmentEnd(void* thread) { static_cast<VcpuThread*>(thread)->Halt(); }

void VcpuThread::Main() {
  ::prctl(PR_SET_NAME, "kvm-vcpu");
  BlockOtherSignals();
  thread_id_.store(ThreadId());
  thread_id_.notify_one();

  for (;;) {
    state_.wait(State::kParked);
    if (state_.load() == State::kHalting) break;
    const int result = RunOnce();
    {
      const std::lock_guard lock(mutex_);
      if (state_.load() == State::kHalting) break;
      EndRun(result);
      result_ = result;
      state_.store(State::kParked);
    }
    // After this answer the function must not be released here any more.
    if (report_.NonBlockingCall() == napi_closing) return;
  }
  report_.Release();
}

int VcpuThread::RunOnce() {
  for (;;) {
    const int result = KvmIoctl(fd_, kvm_abi::kRun);
    // With every other signal blocked, -EINTR without the flag comes from a debugger or from a stop and continue.
    if (result == -EINTR && !ImmediateExit(run_)) continue;
    if (result != 0) return result;
    switch (answers_.Try(run_)) {
      case MmioAnswers::Answer::kNone:
        return result;
      case MmioAnswers::Answer::kGivenAndWake:
        report_.NonBlockingCall(&posted_report);
        break;
      case MmioAnswers::Answer::kGiven:
        break;
    }
  }
}
