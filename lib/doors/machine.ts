/** `kvm-arm64/machine`: a small machine around a VM, in which a script boots Linux and talks to it. */
export {
  bootMachine,
  type DeviceNode,
  type DiskOptions,
  encodeDeviceTree,
  type ExpectOptions,
  type GuestConsole,
  initramfs,
  type Machine,
  type MachineEnd,
  MachineError,
  type MachineErrorCode,
  type MachineOptions,
  type PropertyValue,
  type RootEntry,
} from '../machine/index.js'
