/** A small machine around a VM: memory, device tree, serial port, virtio devices. Boots Linux from a script. */
export type { DeviceNode, PropertyValue } from './device-tree.js'
export { encodeDeviceTree } from './device-tree.js'
export { MachineError, type MachineErrorCode, MoveRefusedError } from './errors.js'
export type { ExpectOptions, GuestConsole } from './guest-console.js'
export { initramfs, type RootEntry } from './initramfs.js'
export {
  bootMachine,
  type DiskOptions,
  type Machine,
  type MachineEnd,
  type MachineOptions,
  type SendOptions,
} from './machine.js'
export { receiveMachine, type ReceiveOptions } from './receive.js'
export type { Sent } from './send.js'
