#include "interrupt.h"

#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>

#include "kvm_abi.h"

// System calls are made directly where glibc's wrapper is newer than the oldest glibc the addon loads on (2.28), or
// where its symbol was given a new version when libpthread and librt became part of libc (2.32 to 2.34): gettid,
// tgkill, timer_*, pthread_kill. In place of pthread_sigmask there is sigprocmask, which on Linux is the same.

namespace {

// No other code on arm64 or x64 sends this signal. A real-time signal is not sent at all (EAGAIN) while more signals
// than RLIMIT_SIGPENDING wait for the user's processes: a kick would be lost, and close() would never return.
constexpr int kSignal = SIGSTKFLT;

// The deadline of this thread's KVM_RUN.
thread_local std::atomic<Deadline*> current{nullptr};

// struct sigevent as the kernel knows it; neither C library names the thread id.
struct KernelSigevent {
  union sigval value;
  int signo;
  int notify;
  pid_t thread;
  std::uint8_t pad[44];
};
static_assert(sizeof(KernelSigevent) == 64);
constexpr int kSigevThreadId = 4;

void OnSignal(int, siginfo_t* info, void*) {
  if (info->si_code != SI_TIMER) return;
  // Any process of this user can send a signal that looks like a timer's.
  Deadline* const deadline = current.load();
  if (deadline != nullptr && deadline == info->si_value.sival_ptr) deadline->Expire();
}

}  // namespace

void PrepareInterrupts() {
  static const int result = [] {
    struct sigaction action {};
    action.sa_sigaction = OnSignal;
    // Without SA_RESTART: the ioctl has to return.
    action.sa_flags = SA_SIGINFO;
    sigemptyset(&action.sa_mask);
    return ::sigaction(kSignal, &action, nullptr);
  }();
  static_cast<void>(result);
}

void BlockOtherSignals() {
  sigset_t set;
  sigfillset(&set);
  sigdelset(&set, kSignal);
  ::sigprocmask(SIG_SETMASK, &set, nullptr);
}

pid_t ThreadId() { return static_cast<pid_t>(::syscall(SYS_gettid)); }

void Interrupt(pid_t thread) { ::syscall(SYS_tgkill, ::getpid(), thread, kSignal); }

bool ImmediateExit(std::uint8_t* run) {
  return std::atomic_ref<std::uint8_t>(run[kvm_abi::kRunImmediateExitOffset]).load() != 0;
}

void SetImmediateExit(std::uint8_t* run, bool value) {
  std::atomic_ref<std::uint8_t>(run[kvm_abi::kRunImmediateExitOffset]).store(value ? 1 : 0);
}

Deadline::Deadline(double milliseconds, std::uint8_t* run) : run_(run) {
  // The mask may have been inherited from a parent that blocks everything.
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, kSignal);
  ::sigprocmask(SIG_UNBLOCK, &set, nullptr);

  current.store(this);
  KernelSigevent event{};
  event.value.sival_ptr = this;
  event.signo = kSignal;
  event.notify = kSigevThreadId;
  event.thread = ThreadId();
  if (::syscall(SYS_timer_create, CLOCK_MONOTONIC, &event, &timer_) != 0) {
    error_ = -errno;
    return;
  }
  // A value of zero would not start the clock.
  const double nanoseconds = std::clamp(milliseconds * 1e6, 1.0, 2147483647e9);
  struct itimerspec when {};
  when.it_value.tv_sec = static_cast<time_t>(nanoseconds / 1e9);
  when.it_value.tv_nsec = static_cast<long>(std::fmod(nanoseconds, 1e9));
  if (::syscall(SYS_timer_settime, timer_, 0, &when, nullptr) != 0) error_ = -errno;
}

Deadline::~Deadline() {
  if (timer_ >= 0) ::syscall(SYS_timer_delete, timer_);
  current.store(nullptr);
  if (expired_.load()) SetImmediateExit(run_, false);
}

void Deadline::Expire() {
  // A flag that JavaScript has set must not be cleared here.
  if (ImmediateExit(run_)) return;
  expired_.store(true);
  SetImmediateExit(run_, true);
}
