// Exits of KVM_RUN that need no JavaScript: reads of a register that holds a constant, and writes that the guest need
// not wait for (posted writes, as on a bus). The thread that runs the vCPU answers them and goes on.
//
// A VM's vCPUs share the table and the log, so that the log has the order of all their writes. A thread of a vCPU holds
// the lock for one exit, JavaScript's for one change or for taking the log.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <span>
#include <vector>

class MmioAnswers {
 public:
  enum class Answer {
    // JavaScript has to see the exit.
    kNone,
    kGiven,
    // And JavaScript has to be woken, to take the log.
    kGivenAndWake,
  };

  // Answers the exit in kvm_run, if it can. On any thread.
  Answer Try(std::uint8_t* run);

  // All of these are called on the JavaScript thread. They return 0 or -errno.
  // A read of `size` bytes or fewer within them finds `value`, little endian. Replaces the value of the same bytes.
  int SetConstant(std::uint64_t address, std::size_t size, std::uint64_t value);
  int RemoveConstant(std::uint64_t address);
  // A write within these bytes goes to the log, with the number given here.
  int AddPosted(std::uint64_t address, std::uint64_t size, std::uint32_t number);
  int RemovePosted(std::uint64_t address);
  // Moves writes from the log to `entries`, three words each: number and, above bit 31, size; address; data. Returns
  // how many.
  std::size_t Take(std::span<std::uint64_t> entries);
  // The last wake-up may have been lost: the next write wakes again.
  void ForgetWake();

  static constexpr std::size_t kWordsOfEntry = 3;

 private:
  struct Constant {
    std::uint64_t address;
    std::size_t size;
    std::uint64_t value;
  };
  struct Posted {
    std::uint64_t address;
    std::uint64_t size;
    std::uint32_t number;
  };
  struct Write {
    std::uint32_t number;
    std::uint32_t size;
    std::uint64_t address;
    std::uint64_t data;
  };
  // More than any machine has registers that are worth it: a bound for the search at each exit.
  static constexpr std::size_t kMostRanges = 64;
  // A guest that writes faster than JavaScript takes is made to wait by an exit.
  static constexpr std::size_t kMostWrites = 4096;

  void Count();

  std::mutex mutex_;
  // Without a range no exit takes the lock.
  std::atomic<std::size_t> ranges_{0};
  std::vector<Constant> constants_;
  std::vector<Posted> posted_;
  std::vector<Write> log_;
  bool is_awake_ = false;
};
