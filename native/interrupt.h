// Making KVM_RUN return.
//
// KVM_RUN returns -EINTR when a signal is pending for its thread, and also, before any guest code has run, when
// kvm_run.immediate_exit is set. Neither alone is enough: a signal that arrives just before the ioctl is gone when the
// guest starts, and KVM does not check the flag again after the start. So the flag is set first and then the signal is
// sent, to one thread; its handler does nothing for a kick, and sets the flag itself for a deadline, whose timer can
// fire at any point before the ioctl.
//
// immediate_exit belongs to JavaScript: setting it in `runPage` before a run makes KVM_RUN return without running the
// guest. Nothing here clears it before the ioctl. After a return it is cleared only if a kick or a deadline had set it,
// and it was not set before, so that neither affects the next run unnoticed.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstdint>

// Installs the handler of the signal, once per process.
void PrepareInterrupts();

// Blocks every signal but ours on the calling thread, so that -EINTR there means a kick.
void BlockOtherSignals();

pid_t ThreadId();

// Sends the signal to a thread of this process.
void Interrupt(pid_t thread);

bool ImmediateExit(std::uint8_t* run);
void SetImmediateExit(std::uint8_t* run, bool value);

// Interrupts the KVM_RUN of the calling thread after a time.
class Deadline {
 public:
  // Starts the clock. `milliseconds` is positive; more than 68 years count as 68 years.
  Deadline(double milliseconds, std::uint8_t* run);
  Deadline(const Deadline&) = delete;
  Deadline& operator=(const Deadline&) = delete;
  // Stops the clock and clears the flag if the time had come.
  ~Deadline();

  // 0, or -errno if no timer can be created.
  int error() const { return error_; }
  // Async-signal-safe.
  void Expire();

 private:
  std::uint8_t* const run_;
  std::atomic<bool> expired_{false};
  int timer_ = -1;
  int error_ = 0;
};
