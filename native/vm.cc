#include "vm.h"

#include <unistd.h>

#include <cerrno>
#include <vector>

#include "arguments.h"
#include "device.h"
#include "event.h"
#include "kvm_abi.h"
#include "kvm_ioctl.h"
#include "memory.h"
#include "stats.h"
#include "vcpu.h"

Napi::Function VmFd::Define(Napi::Env env) {
  return DefineClass(env, "VmFd",
                     WithDeviceAttributes({
                         InstanceMethod<&VmFd::CheckExtension>("checkExtension"),
                         InstanceMethod<&VmFd::EnableCap>("enableCap"),
                         InstanceMethod<&VmFd::CreateVcpu>("createVcpu"),
                         InstanceMethod<&VmFd::GetPreferredTarget>("getPreferredTarget"),
                         InstanceMethod<&VmFd::GetRegWritableMasks>("getRegWritableMasks"),
                         InstanceMethod<&VmFd::SetUserMemoryRegion>("setUserMemoryRegion"),
                         InstanceMethod<&VmFd::GetDirtyLog>("getDirtyLog"),
                         InstanceMethod<&VmFd::ClearDirtyLog>("clearDirtyLog"),
                         InstanceMethod<&VmFd::SetConstant>("setConstant"),
                         InstanceMethod<&VmFd::RemoveConstant>("removeConstant"),
                         InstanceMethod<&VmFd::AddPosted>("addPosted"),
                         InstanceMethod<&VmFd::RemovePosted>("removePosted"),
                         InstanceMethod<&VmFd::TakePosted>("takePosted"),
                         InstanceMethod<&VmFd::SetCounterOffset>("setCounterOffset"),
                         InstanceMethod<&VmFd::CreateDevice>("createDevice"),
                         InstanceMethod<&VmFd::IrqLine>("irqLine"),
                         InstanceMethod<&VmFd::SignalMsi>("signalMsi"),
                         InstanceMethod<&VmFd::SetGsiRouting>("setGsiRouting"),
                         InstanceMethod<&VmFd::IoEventFd>("ioEventFd"),
                         InstanceMethod<&VmFd::IrqFd>("irqFd"),
                         InstanceMethod<&VmFd::RegisterCoalescedMmio>("registerCoalescedMmio"),
                         InstanceMethod<&VmFd::UnregisterCoalescedMmio>("unregisterCoalescedMmio"),
                         InstanceMethod<&VmFd::CopyMteTags>("copyMteTags"),
                         InstanceMethod<&VmFd::ResetDirtyRings>("resetDirtyRings"),
                         InstanceMethod<&VmFd::GetStatsFd>("getStatsFd"),
                         InstanceMethod<&VmFd::Close>("close"),
                     }));
}

Napi::Value VmFd::CheckExtension(const Napi::CallbackInfo& info) {
  const std::uint32_t capability = ToUint32({info, 0, "capability"});
  return Napi::Number::New(info.Env(), KvmIoctl(descriptor(), kvm_abi::kCheckExtension, capability));
}

Napi::Value VmFd::EnableCap(const Napi::CallbackInfo& info) {
  kvm_abi::EnableCap request{};
  request.cap = ToUint32({info, 0, "capability"});
  request.flags = ToUint32({info, 1, "flags"});
  CopyUint64s({info, 2, "args"}, request.args);
  const int result = KvmIoctl(descriptor(), kvm_abi::kEnableCap, &request);
  const bool is_ring = request.cap == kvm_abi::kCapDirtyLogRing || request.cap == kvm_abi::kCapDirtyLogRingAcqRel;
  // KVM looks at 32 bits of it.
  if (result == 0 && is_ring) ring_size_ = static_cast<std::uint32_t>(request.args[0]);
  return Napi::Number::New(info.Env(), result);
}

Napi::Value VmFd::CreateVcpu(const Napi::CallbackInfo& info) {
  const std::uint32_t id = ToUint32({info, 0, "id"});
  Fd fd(KvmIoctl(descriptor(), kvm_abi::kCreateVcpu, id));
  if (fd.get() < 0) return Napi::Number::New(info.Env(), fd.get());
  Shared<Mapping> run = Mapping::Map(fd.get(), parts_.run_size);
  if (!run) return Napi::Number::New(info.Env(), -errno);
  Shared<Mapping> ring;
  if (ring_size_ != 0) {
    ring = DirtyRing::Map(fd.get(), ring_size_);
    if (!ring) return Napi::Number::New(info.Env(), -errno);
  }
  return VcpuFd::Create(info.Env(),
                        VcpuFd::Parts{slots_, answers_, std::move(run), DirtyRing(std::move(ring)), std::move(fd)});
}

Napi::Value VmFd::GetPreferredTarget(const Napi::CallbackInfo& info) {
  const std::span<std::uint32_t> init = ToUint32s({info, 0, "init"}, sizeof(kvm_abi::VcpuInit) / sizeof(std::uint32_t));
  return Napi::Number::New(info.Env(), KvmIoctl(descriptor(), kvm_abi::kArmPreferredTarget, init.data()));
}

Napi::Value VmFd::GetRegWritableMasks(const Napi::CallbackInfo& info) {
  kvm_abi::RegMaskRange request{};
  request.range = ToUint32({info, 0, "range"});
  request.addr = reinterpret_cast<std::uintptr_t>(ToUint64s({info, 1, "masks"}, kvm_abi::kFeatureIdRangeSize).data());
  return Napi::Number::New(info.Env(), KvmIoctl(descriptor(), kvm_abi::kArmGetRegWritableMasks, &request));
}

Napi::Value VmFd::SetUserMemoryRegion(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const Napi::Object request = ToObject({info, 0, "region"});
  kvm_abi::UserMemoryRegion region{};
  region.slot = ToUint32({request, "slot"});
  region.flags = ToUint32({request, "flags"});
  region.guest_phys_addr = ToUint64({request, "address"});
  const Argument memory{request, "memory"};
  const std::size_t offset = ToSize({request, "offset"});
  const std::size_t size = ToSize({request, "size"});
  region.memory_size = size;

  // From here on no JavaScript runs that could close what is used.
  Shared<Mapping> mapping;
  if (!memory.IsNull()) {
    const GuestMemoryFd* const guest_memory = GuestMemoryFd::From(memory.value);
    if (guest_memory == nullptr) ThrowInvalidType(env, memory.name, "memory made by createMemory(), or null");
    mapping = guest_memory->mapping();
    if (!mapping) return Napi::Number::New(env, -EBADF);
    // The kernel would accept any address of this process; the guest must not see anything beyond the mapping.
    if (offset > mapping->size() || size > mapping->size() - offset) {
      ThrowOutOfRange(env, "size", "within the memory, counted from offset");
    }
    region.userspace_addr = reinterpret_cast<std::uintptr_t>(mapping->data() + offset);
  } else if (size != 0) {
    ThrowInvalidType(env, memory.name, "memory made by createMemory() unless size is 0");
  }

  if (descriptor() < 0) return Napi::Number::New(env, descriptor());
  // Space for the owner is allocated before the ioctl: once the kernel has the memory, nothing may fail.
  MemorySlot& owner = (*slots_)[region.slot];
  const int result = KvmIoctl(descriptor(), kvm_abi::kSetUserMemoryRegion, &region);
  if (result == 0) owner = MemorySlot{size == 0 ? Shared<Mapping>() : std::move(mapping), size};
  if (!owner.mapping) slots_->erase(region.slot);
  return Napi::Number::New(env, result);
}

// Words of the bitmap that KVM fills for a slot; 0 if it has none.
std::size_t VmFd::DirtyWords(std::uint32_t slot) const {
  if (!slots_) return 0;
  const auto found = slots_->find(slot);
  if (found == slots_->end()) return 0;
  const std::size_t pages = found->second.size / static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  return (pages + 63) / 64;
}

Napi::Value VmFd::GetDirtyLog(const Napi::CallbackInfo& info) {
  kvm_abi::DirtyLog log{};
  log.slot = ToUint32({info, 0, "slot"});
  log.bitmap = reinterpret_cast<std::uintptr_t>(ToUint64s({info, 1, "bitmap"}, DirtyWords(log.slot)).data());
  return Napi::Number::New(info.Env(), KvmIoctl(descriptor(), kvm_abi::kGetDirtyLog, &log));
}

Napi::Value VmFd::ClearDirtyLog(const Napi::CallbackInfo& info) {
  kvm_abi::ClearDirtyLog log{};
  log.slot = ToUint32({info, 0, "slot"});
  log.first_page = ToSize({info, 1, "firstPage"});
  log.num_pages = ToUint32({info, 2, "pages"});
  const std::size_t words = (static_cast<std::size_t>(log.num_pages) + 63) / 64;
  log.bitmap = reinterpret_cast<std::uintptr_t>(ToUint64s({info, 3, "bitmap"}, words).data());
  return Napi::Number::New(info.Env(), KvmIoctl(descriptor(), kvm_abi::kClearDirtyLog, &log));
}

Napi::Value VmFd::SetCounterOffset(const Napi::CallbackInfo& info) {
  const kvm_abi::CounterOffset offset{
      .counter_offset = ToUint64({info, 0, "offset"}),
      .reserved = ToUint64({info, 1, "reserved"}),
  };
  return Napi::Number::New(info.Env(), KvmIoctl(descriptor(), kvm_abi::kArmSetCounterOffset, &offset));
}

// The answers are no ioctls; a closed VM refuses them all the same.
Napi::Value VmFd::SetConstant(const Napi::CallbackInfo& info) {
  const std::uint64_t address = ToUint64({info, 0, "address"});
  const std::size_t size = ToSize({info, 1, "size"});
  const std::uint64_t value = ToUint64({info, 2, "value"});
  const int result = descriptor() < 0 ? descriptor() : answers_->SetConstant(address, size, value);
  return Napi::Number::New(info.Env(), result);
}

Napi::Value VmFd::RemoveConstant(const Napi::CallbackInfo& info) {
  const std::uint64_t address = ToUint64({info, 0, "address"});
  return Napi::Number::New(info.Env(), descriptor() < 0 ? descriptor() : answers_->RemoveConstant(address));
}

Napi::Value VmFd::AddPosted(const Napi::CallbackInfo& info) {
  const std::uint64_t address = ToUint64({info, 0, "address"});
  const std::size_t size = ToSize({info, 1, "size"});
  const std::uint32_t number = ToUint32({info, 2, "number"});
  const int result = descriptor() < 0 ? descriptor() : answers_->AddPosted(address, size, number);
  return Napi::Number::New(info.Env(), result);
}

Napi::Value VmFd::RemovePosted(const Napi::CallbackInfo& info) {
  const std::uint64_t address = ToUint64({info, 0, "address"});
  return Napi::Number::New(info.Env(), descriptor() < 0 ? descriptor() : answers_->RemovePosted(address));
}

// Also on a closed VM: what its vCPUs wrote before is not lost.
Napi::Value VmFd::TakePosted(const Napi::CallbackInfo& info) {
  const std::span<std::uint64_t> entries = ToUint64s({info, 0, "entries"}, MmioAnswers::kWordsOfEntry);
  return Napi::Number::New(info.Env(), static_cast<double>(answers_->Take(entries)));
}

Napi::Value VmFd::CreateDevice(const Napi::CallbackInfo& info) {
  kvm_abi::CreateDevice request{};
  request.type = ToUint32({info, 0, "type"});
  request.flags = ToUint32({info, 1, "flags"});
  const int result = KvmIoctl(descriptor(), kvm_abi::kCreateDevice, &request);
  if (result < 0 || (request.flags & kvm_abi::kCreateDeviceTest) != 0) return Napi::Number::New(info.Env(), result);
  return DeviceFd::Create(info.Env(), DeviceFd::Parts{slots_, Fd(static_cast<int>(request.fd))});
}

Napi::Value VmFd::IrqLine(const Napi::CallbackInfo& info) {
  const kvm_abi::IrqLevel line{.irq = ToUint32({info, 0, "irq"}), .level = ToUint32({info, 1, "level"})};
  return Napi::Number::New(info.Env(), KvmIoctl(descriptor(), kvm_abi::kIrqLine, &line));
}

Napi::Value VmFd::SignalMsi(const Napi::CallbackInfo& info) {
  const std::uint64_t address = ToUint64({info, 0, "address"});
  kvm_abi::Msi msi{};
  msi.address_lo = static_cast<std::uint32_t>(address);
  msi.address_hi = static_cast<std::uint32_t>(address >> 32);
  msi.data = ToUint32({info, 1, "data"});
  msi.flags = ToUint32({info, 2, "flags"});
  msi.devid = ToUint32({info, 3, "deviceId"});
  return Napi::Number::New(info.Env(), KvmIoctl(descriptor(), kvm_abi::kSignalMsi, &msi));
}

Napi::Value VmFd::SetGsiRouting(const Napi::CallbackInfo& info) {
  const std::uint32_t flags = ToUint32({info, 0, "flags"});
  const std::span<const std::uint32_t> routes = ToUint32s({info, 1, "routes"});
  if (routes.size() % kvm_abi::kRouteWords != 0) ThrowOutOfRange(info.Env(), "routes", "whole routes of 12 words");
  std::vector<std::uint32_t> request{static_cast<std::uint32_t>(routes.size() / kvm_abi::kRouteWords), flags};
  request.insert(request.end(), routes.begin(), routes.end());
  return Napi::Number::New(info.Env(), KvmIoctl(descriptor(), kvm_abi::kSetGsiRouting, request.data()));
}

namespace {

// The descriptor of an event, or the -errno to answer in its place.
int ToEvent(const Argument& argument) {
  const EventFd* const event = EventFd::From(argument.value);
  if (event == nullptr) ThrowInvalidType(argument.Env(), argument.name, "an event made by createEvent()");
  return event->descriptor();
}

}  // namespace

Napi::Value VmFd::IoEventFd(const Napi::CallbackInfo& info) {
  kvm_abi::IoEventFd request{};
  request.fd = ToEvent({info, 0, "event"});
  request.addr = ToUint64({info, 1, "address"});
  request.len = ToUint32({info, 2, "size"});
  request.flags = ToUint32({info, 3, "flags"});
  request.datamatch = ToUint64({info, 4, "datamatch"});
  if (request.fd < 0) return Napi::Number::New(info.Env(), request.fd);
  return Napi::Number::New(info.Env(), KvmIoctl(descriptor(), kvm_abi::kIoEventFd, &request));
}

Napi::Value VmFd::IrqFd(const Napi::CallbackInfo& info) {
  kvm_abi::IrqFd request{};
  const int event = ToEvent({info, 0, "event"});
  request.gsi = ToUint32({info, 1, "gsi"});
  request.flags = ToUint32({info, 2, "flags"});
  const Argument resampled{info, 3, "resampled"};
  const int resample_event = resampled.IsNull() ? -EBADF : ToEvent(resampled);
  if (event < 0) return Napi::Number::New(info.Env(), event);
  request.fd = static_cast<std::uint32_t>(event);
  request.resamplefd = static_cast<std::uint32_t>(resample_event);
  return Napi::Number::New(info.Env(), KvmIoctl(descriptor(), kvm_abi::kIrqFd, &request));
}

namespace {

Napi::Value ChangeZones(int fd, unsigned long request, const Napi::CallbackInfo& info) {
  const kvm_abi::CoalescedMmioZone zone{
      .addr = ToUint64({info, 0, "address"}),
      .size = ToUint32({info, 1, "size"}),
      .pio = ToUint32({info, 2, "pio"}),
  };
  return Napi::Number::New(info.Env(), KvmIoctl(fd, request, &zone));
}

}  // namespace

Napi::Value VmFd::RegisterCoalescedMmio(const Napi::CallbackInfo& info) {
  return ChangeZones(descriptor(), kvm_abi::kRegisterCoalescedMmio, info);
}

Napi::Value VmFd::UnregisterCoalescedMmio(const Napi::CallbackInfo& info) {
  return ChangeZones(descriptor(), kvm_abi::kUnregisterCoalescedMmio, info);
}

Napi::Value VmFd::CopyMteTags(const Napi::CallbackInfo& info) {
  kvm_abi::CopyMteTags request{};
  request.guest_ipa = ToUint64({info, 0, "address"});
  request.length = ToSize({info, 1, "length"});
  // KVM writes or reads one byte for each granule, and nothing of a length that is no multiple of a page.
  const std::size_t tags = request.length / kvm_abi::kMteGranule;
  request.addr = reinterpret_cast<std::uintptr_t>(ToBytes({info, 2, "tags"}, tags).data());
  request.flags = ToUint32({info, 3, "flags"});
  return Napi::Number::New(info.Env(), KvmIoctl(descriptor(), kvm_abi::kArmMteCopyTags, &request));
}

Napi::Value VmFd::ResetDirtyRings(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), KvmIoctl(descriptor(), kvm_abi::kResetDirtyRings));
}

Napi::Value VmFd::GetStatsFd(const Napi::CallbackInfo& info) { return StatsFd::Open(info.Env(), descriptor(), slots_); }

void VmFd::Close(const Napi::CallbackInfo&) {
  parts_.fd.Close();
  slots_.Reset();
}
