// The part of KVM's userspace ABI that the addon speaks: request numbers and argument structures, as in
// include/uapi/linux/kvm.h and arch/arm64/include/uapi/asm/kvm.h. They are written down here rather than included
// because the addon compiles on x64 too, whose headers lack the arm64 structures, and against headers older than the
// newest request.
#pragma once

#include <linux/ioctl.h>

#include <cstddef>
#include <cstdint>

namespace kvm_abi {

constexpr unsigned kIoctlType = 0xAE;

// struct kvm_run: only what the addon itself touches; JavaScript reads the rest through the mapping.
constexpr std::size_t kRunImmediateExitOffset = 1;
constexpr std::size_t kRunExitReasonOffset = 8;
constexpr std::uint32_t kExitMmio = 6;
constexpr std::size_t kRunMmioOffset = 32;

struct KvmRunMmio {
  std::uint64_t phys_addr;
  std::uint8_t data[8];
  std::uint32_t len;
  std::uint8_t is_write;
};

struct UserMemoryRegion {
  std::uint32_t slot;
  std::uint32_t flags;
  std::uint64_t guest_phys_addr;
  std::uint64_t memory_size;
  std::uint64_t userspace_addr;
};

struct IrqLevel {
  std::uint32_t irq;
  std::uint32_t level;
};

struct Msi {
  std::uint32_t address_lo;
  std::uint32_t address_hi;
  std::uint32_t data;
  std::uint32_t flags;
  std::uint32_t devid;
  std::uint8_t pad[12];
};

// struct kvm_irq_routing, whose entries follow it.
struct IrqRouting {
  std::uint32_t nr;
  std::uint32_t flags;
};

struct IoEventFd {
  std::uint64_t datamatch;
  std::uint64_t addr;
  std::uint32_t len;
  std::int32_t fd;
  std::uint32_t flags;
  std::uint8_t pad[36];
};

struct IrqFd {
  std::uint32_t fd;
  std::uint32_t gsi;
  std::uint32_t flags;
  std::uint32_t resamplefd;
  std::uint8_t pad[16];
};

struct CoalescedMmioZone {
  std::uint64_t addr;
  std::uint32_t size;
  std::uint32_t pio;
};

// struct kvm_coalesced_mmio, of which the ring has as many as fit in the page behind its two indexes.
struct CoalescedMmio {
  std::uint64_t phys_addr;
  std::uint32_t len;
  std::uint32_t pio;
  std::uint8_t data[8];
};

struct CoalescedMmioRing {
  std::uint32_t first;
  std::uint32_t last;
};

struct CopyMteTags {
  std::uint64_t guest_ipa;
  std::uint64_t length;
  std::uint64_t addr;
  std::uint64_t flags;
  std::uint64_t reserved[2];
};

// struct kvm_dirty_gfn, an entry of a vCPU's dirty ring.
struct DirtyGfn {
  std::uint32_t flags;
  std::uint32_t slot;
  std::uint64_t offset;
};
constexpr std::uint32_t kDirtyGfnDirty = 1;
constexpr std::uint32_t kDirtyGfnReset = 2;

struct DirtyLog {
  std::uint32_t slot;
  std::uint32_t padding;
  std::uint64_t bitmap;
};

struct ClearDirtyLog {
  std::uint32_t slot;
  std::uint32_t num_pages;
  std::uint64_t first_page;
  std::uint64_t bitmap;
};

struct CounterOffset {
  std::uint64_t counter_offset;
  std::uint64_t reserved;
};

struct EnableCap {
  std::uint32_t cap;
  std::uint32_t flags;
  std::uint64_t args[4];
  std::uint8_t pad[64];
};

struct OneReg {
  std::uint64_t id;
  std::uint64_t addr;
};

struct VcpuInit {
  std::uint32_t target;
  std::uint32_t features[7];
};

struct RegMaskRange {
  std::uint64_t addr;
  std::uint32_t range;
  std::uint32_t reserved[13];
};

struct MpState {
  std::uint32_t mp_state;
};

// The control and breakpoint value registers, then those of watchpoints: 16 of each of the four.
struct GuestDebug {
  std::uint32_t control;
  std::uint32_t pad;
  std::uint64_t registers[64];
};

struct VcpuEvents {
  std::uint8_t bytes[64];
};

struct CreateDevice {
  std::uint32_t type;
  std::uint32_t fd;
  std::uint32_t flags;
};

struct DeviceAttr {
  std::uint32_t flags;
  std::uint32_t group;
  std::uint64_t attr;
  std::uint64_t addr;
};

// The size in a request number is that of the structure's fixed part: for KVM_GET_REG_LIST, of `n` alone.
constexpr unsigned long kGetApiVersion = _IO(kIoctlType, 0x00);
constexpr unsigned long kCreateVm = _IO(kIoctlType, 0x01);
constexpr unsigned long kCheckExtension = _IO(kIoctlType, 0x03);
constexpr unsigned long kGetVcpuMmapSize = _IO(kIoctlType, 0x04);
constexpr unsigned long kCreateVcpu = _IO(kIoctlType, 0x41);
constexpr unsigned long kGetDirtyLog = _IOW(kIoctlType, 0x42, DirtyLog);
constexpr unsigned long kSetUserMemoryRegion = _IOW(kIoctlType, 0x46, UserMemoryRegion);
constexpr unsigned long kIrqLine = _IOW(kIoctlType, 0x61, IrqLevel);
constexpr unsigned long kRegisterCoalescedMmio = _IOW(kIoctlType, 0x67, CoalescedMmioZone);
constexpr unsigned long kUnregisterCoalescedMmio = _IOW(kIoctlType, 0x68, CoalescedMmioZone);
constexpr unsigned long kSetGsiRouting = _IOW(kIoctlType, 0x6a, IrqRouting);
constexpr unsigned long kIrqFd = _IOW(kIoctlType, 0x76, IrqFd);
constexpr unsigned long kIoEventFd = _IOW(kIoctlType, 0x79, IoEventFd);
constexpr unsigned long kRun = _IO(kIoctlType, 0x80);
constexpr unsigned long kGetMpState = _IOR(kIoctlType, 0x98, MpState);
constexpr unsigned long kSetMpState = _IOW(kIoctlType, 0x99, MpState);
constexpr unsigned long kSetGuestDebug = _IOW(kIoctlType, 0x9b, GuestDebug);
constexpr unsigned long kGetVcpuEvents = _IOR(kIoctlType, 0x9f, VcpuEvents);
constexpr unsigned long kSetVcpuEvents = _IOW(kIoctlType, 0xa0, VcpuEvents);
constexpr unsigned long kEnableCap = _IOW(kIoctlType, 0xa3, EnableCap);
constexpr unsigned long kSignalMsi = _IOW(kIoctlType, 0xa5, Msi);
constexpr unsigned long kGetOneReg = _IOW(kIoctlType, 0xab, OneReg);
constexpr unsigned long kSetOneReg = _IOW(kIoctlType, 0xac, OneReg);
constexpr unsigned long kArmVcpuInit = _IOW(kIoctlType, 0xae, VcpuInit);
constexpr unsigned long kArmPreferredTarget = _IOR(kIoctlType, 0xaf, VcpuInit);
constexpr unsigned long kGetRegList = _IOWR(kIoctlType, 0xb0, std::uint64_t);
constexpr unsigned long kArmMteCopyTags = _IOR(kIoctlType, 0xb4, CopyMteTags);
constexpr unsigned long kArmSetCounterOffset = _IOW(kIoctlType, 0xb5, CounterOffset);
constexpr unsigned long kArmGetRegWritableMasks = _IOR(kIoctlType, 0xb6, RegMaskRange);
constexpr unsigned long kClearDirtyLog = _IOWR(kIoctlType, 0xc0, ClearDirtyLog);
constexpr unsigned long kArmVcpuFinalize = _IOW(kIoctlType, 0xc2, int);
constexpr unsigned long kResetDirtyRings = _IO(kIoctlType, 0xc7);
constexpr unsigned long kGetStatsFd = _IO(kIoctlType, 0xce);
constexpr unsigned long kCreateDevice = _IOWR(kIoctlType, 0xe0, CreateDevice);
constexpr unsigned long kSetDeviceAttr = _IOW(kIoctlType, 0xe1, DeviceAttr);
constexpr unsigned long kGetDeviceAttr = _IOW(kIoctlType, 0xe2, DeviceAttr);
constexpr unsigned long kHasDeviceAttr = _IOW(kIoctlType, 0xe3, DeviceAttr);

// Far beyond any register list: 8 to 20 times those of today.
constexpr std::size_t kRegListRoom = 8192;
// Words of struct kvm_irq_routing_entry.
constexpr std::size_t kRouteWords = 12;
constexpr std::size_t kFeatureIdRangeSize = 192;
constexpr std::uint32_t kCreateDeviceTest = 1;
// Bytes of memory that share a tag.
constexpr std::size_t kMteGranule = 16;
constexpr std::uint32_t kCapDirtyLogRing = 192;
constexpr std::uint32_t kCapDirtyLogRingAcqRel = 223;
// Where a vCPU's descriptor has its dirty ring, in pages.
constexpr std::size_t kDirtyLogPageOffset = 64;

}  // namespace kvm_abi
