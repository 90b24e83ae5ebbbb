// The thread on which a vCPU's run() blocks, so that the event loop does not.
//
// Four rules about threads and thread-safe functions; breaking any of them is a hang or a crash:
//  1. The owner aborts the thread-safe function before it joins the thread. A thread that waits inside N-API for the
//     JavaScript thread, which waits in join(), never returns. (The thread also never waits there: its calls do not
//     block and the queue has no limit.)
//  2. The thread-safe function starts with two users: the thread, which releases its share as its last act, and the
//     owner, which aborts the other. With one, whoever comes second uses freed memory.
//  3. Node.js destroys thread-safe functions at the end of an environment before it finalizes objects. So a cleanup
//     hook that was added after the function was made, and therefore runs before it is destroyed, stops the thread.
//  4. A call that is still queued when the environment ends is made with a null environment, and its data must be freed
//     then. Ours carry none to free, and return at once, since the owner may be gone.
//
// The function keeps the event loop alive only while a run is in flight, and a run in flight keeps the vCPU from being
// collected.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

#include "mmio.h"
#include "napi_setup.h"

class VcpuThread {
 public:
  // Starts a thread that waits for runs of the vCPU behind `fd`, whose kvm_run is at `run`; null if no thread can be
  // created. All of them stay valid until the VcpuThread is destroyed.
  static std::unique_ptr<VcpuThread> Start(Napi::Env env, int fd, std::uint8_t* run, MmioAnswers& answers);
  VcpuThread(const VcpuThread&) = delete;
  VcpuThread& operator=(const VcpuThread&) = delete;
  ~VcpuThread();

  // All of these are called on the JavaScript thread.
  bool in_flight() const { return deferred_.has_value(); }
  // `self` is the vCPU's object, and `deferred` what the run settles. Not while a run is in flight.
  void Run(Napi::Object self, Napi::Promise::Deferred deferred);
  // Makes a run in flight return. If that run has already left the guest, with anything but -EINTR, the next one ends
  // instead. Does nothing without a run in flight.
  void Kick();
  // KVM_RUN on the calling thread, which ends at once if a kick came too late for the run before. Not while a run is in
  // flight.
  int RunHere();
  // Stops the thread; only Close() settles a run in flight.
  void Halt();
  // Stops the thread and settles a run in flight with -EINTR.
  void Close();

 private:
  enum class State : std::uint32_t { kParked, kRunning, kHalting };

  VcpuThread(Napi::Env env, int fd, std::uint8_t* run, MmioAnswers& answers);
  void Main();
  int RunOnce();
  void BeginRun();
  void MarkKicked();
  void EndRun(int result);
  void Settle(int result);
  void TellPosted();
  static void OnReport(Napi::Env env, Napi::Function callback, VcpuThread* thread, void* data);
  static void OnEnvironmentEnd(void* thread);

  using Report = Napi::TypedThreadSafeFunction<VcpuThread, void, &VcpuThread::OnReport>;

  const Napi::Env env_;
  const int fd_;
  std::uint8_t* const run_;
  MmioAnswers& answers_;

  // Touched by the JavaScript thread alone.
  std::optional<Napi::Promise::Deferred> deferred_;
  Napi::ObjectReference self_;
  bool halted_ = false;

  Report report_;
  // Set when KVM_RUN has returned, before it is reported.
  int result_ = 0;

  // Orders a kick against the return of KVM_RUN: the kick applies to the current run, or else to the next one.
  std::mutex mutex_;
  std::atomic<State> state_{State::kParked};
  // The current run was kicked.
  bool kicked_ = false;
  // A kick, and not JavaScript, has set immediate_exit.
  bool flag_is_ours_ = false;
  // A kick came after its run had left the guest.
  bool kick_is_due_ = false;
  std::atomic<pid_t> thread_id_{0};
  std::thread thread_;
};
