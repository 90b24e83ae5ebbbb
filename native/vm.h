#pragma once

#include <map>

#include "attributes.h"
#include "fd.h"
#include "mapping.h"
#include "mmio.h"

// The memory in a VM's slots. The VM, its vCPUs and its devices own it together, since in the kernel too the VM lives
// until the last of their descriptors is closed: no slot ever names an address that has been unmapped.
struct MemorySlot {
  Shared<Mapping> mapping;
  // Bytes of the mapping that are in the slot.
  std::size_t size = 0;
};
using MemorySlots = std::map<std::uint32_t, MemorySlot>;

class VmFd : public AttributeHandle<VmFd> {
 public:
  static constexpr napi_type_tag kTag{0x6b766d2d61726d36, 0x0000000000000002};
  static constexpr Napi::FunctionReference Addon::*kClass = &Addon::vm;
  struct Parts {
    Fd fd;
    // KVM_GET_VCPU_MMAP_SIZE
    std::size_t run_size;
  };

  static Napi::Function Define(Napi::Env env);
  explicit VmFd(const Napi::CallbackInfo& info)
      : AttributeHandle(info),
        slots_(Shared<MemorySlots>::Make()),
        answers_(Shared<MmioAnswers>::Make()),
        parts_(TakeParts<Parts>(info)) {}

  int descriptor() const { return parts_.fd.get(); }

 private:
  Napi::Value CheckExtension(const Napi::CallbackInfo& info);
  Napi::Value EnableCap(const Napi::CallbackInfo& info);
  Napi::Value CreateVcpu(const Napi::CallbackInfo& info);
  Napi::Value GetPreferredTarget(const Napi::CallbackInfo& info);
  Napi::Value GetRegWritableMasks(const Napi::CallbackInfo& info);
  Napi::Value SetUserMemoryRegion(const Napi::CallbackInfo& info);
  Napi::Value IrqLine(const Napi::CallbackInfo& info);
  Napi::Value SignalMsi(const Napi::CallbackInfo& info);
  Napi::Value SetGsiRouting(const Napi::CallbackInfo& info);
  Napi::Value IoEventFd(const Napi::CallbackInfo& info);
  Napi::Value IrqFd(const Napi::CallbackInfo& info);
  Napi::Value GetDirtyLog(const Napi::CallbackInfo& info);
  Napi::Value ClearDirtyLog(const Napi::CallbackInfo& info);
  std::size_t DirtyWords(std::uint32_t slot) const;
  Napi::Value SetConstant(const Napi::CallbackInfo& info);
  Napi::Value RemoveConstant(const Napi::CallbackInfo& info);
  Napi::Value AddPosted(const Napi::CallbackInfo& info);
  Napi::Value RemovePosted(const Napi::CallbackInfo& info);
  Napi::Value TakePosted(const Napi::CallbackInfo& info);
  Napi::Value SetCounterOffset(const Napi::CallbackInfo& info);
  Napi::Value CreateDevice(const Napi::CallbackInfo& info);
  Napi::Value RegisterCoalescedMmio(const Napi::CallbackInfo& info);
  Napi::Value UnregisterCoalescedMmio(const Napi::CallbackInfo& info);
  Napi::Value CopyMteTags(const Napi::CallbackInfo& info);
  Napi::Value ResetDirtyRings(const Napi::CallbackInfo& info);
  Napi::Value GetStatsFd(const Napi::CallbackInfo& info);
  void Close(const Napi::CallbackInfo& info);

  // Declared first, destroyed last: memory outlives the descriptor through which it can be reached.
  Shared<MemorySlots> slots_;
  // With the vCPUs, which look there while they run.
  Shared<MmioAnswers> answers_;
  Parts parts_;
  // Bytes of each vCPU's dirty ring; 0 without.
  std::size_t ring_size_ = 0;
};
