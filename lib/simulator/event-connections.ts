/** What a VM does with events (`virt/kvm/eventfd.c`). */
import {
  errnos,
  KVM_IOEVENTFD_FLAG_DATAMATCH,
  KVM_IOEVENTFD_FLAG_DEASSIGN,
  KVM_IOEVENTFD_FLAG_PIO,
  KVM_IOEVENTFD_FLAG_VIRTIO_CCW_NOTIFY,
  KVM_IOEVENTFD_VALID_FLAG_MASK,
  KVM_IRQFD_FLAG_DEASSIGN,
  KVM_IRQFD_FLAG_RESAMPLE,
} from '../uapi.js'
import { pulse } from './interrupts.js'
import type { MmioWrite } from './mmio.js'
import type { VmState } from './state.js'
import type { IoEvent, IrqEvent, SimulatedEvent } from './event.js'

const END = 1n << 64n

/** `KVM_IOEVENTFD`: returns 0 or `-errno`. */
export function setIoEvent(vm: VmState, event: SimulatedEvent, request: IoEventRequest): number {
  const { address, size, flags, datamatch } = request
  const bus =
    flags & KVM_IOEVENTFD_FLAG_PIO ? KVM_IOEVENTFD_FLAG_PIO : flags & KVM_IOEVENTFD_FLAG_VIRTIO_CCW_NOTIFY
  const match = flags & KVM_IOEVENTFD_FLAG_DATAMATCH ? datamatch : null
  const asked: IoEvent = { event, bus, address, size, match }
  return flags & KVM_IOEVENTFD_FLAG_DEASSIGN ? removeIoEvent(vm, asked) : addIoEvent(vm, asked, flags)
}

export interface IoEventRequest {
  readonly address: bigint
  readonly size: number
  readonly flags: number
  readonly datamatch: bigint
}

function addIoEvent(vm: VmState, asked: IoEvent, flags: number): number {
  const { bus, address, size, match } = asked
  if (![0, 1, 2, 4, 8].includes(size)) return -errnos.EINVAL
  if (address + BigInt(size) >= END + (size === 0 ? 1n : 0n)) return -errnos.EINVAL
  if ((flags & ~KVM_IOEVENTFD_VALID_FLAG_MASK) !== 0) return -errnos.EINVAL
  if (size === 0 && match !== null) return -errnos.EINVAL
  const isTaken = vm.ioEvents.some(
    (known) =>
      known.bus === bus &&
      known.address === address &&
      (known.size === 0 ||
        size === 0 ||
        (known.size === size && (known.match === null || match === null || known.match === match))),
  )
  if (isTaken) return -errnos.EEXIST
  vm.ioEvents.push(asked)
  return 0
}

function removeIoEvent(vm: VmState, asked: IoEvent): number {
  const place = vm.ioEvents.findIndex(
    (known) =>
      known.bus === asked.bus &&
      known.event === asked.event &&
      known.address === asked.address &&
      known.size === asked.size &&
      known.match === asked.match,
  )
  if (place < 0) return -errnos.ENOENT
  vm.ioEvents.splice(place, 1)
  return 0
}

/** Returns whether an event counted the write, after which the guest goes on. */
export function countWrite(vm: VmState, { address, size, data }: MmioWrite): boolean {
  const found = vm.ioEvents.find(
    (known) =>
      known.bus === 0 &&
      known.address === address &&
      (known.size === 0 || (BigInt(known.size) === size && (known.match ?? data) === data)),
  )
  found?.event.add(1n)
  return found !== undefined
}

/** `KVM_IRQFD`: returns 0 or `-errno`. */
export function setIrqEvent(
  vm: VmState,
  { event, gsi }: IrqEvent,
  flags: number,
  resampled: SimulatedEvent | null,
): number {
  if ((flags & ~(KVM_IRQFD_FLAG_DEASSIGN | KVM_IRQFD_FLAG_RESAMPLE)) !== 0) return -errnos.EINVAL
  const left = vm.irqEvents.filter((known) => !known.event.closed)
  if (flags & KVM_IRQFD_FLAG_DEASSIGN) {
    const rest = left.filter((known) => known.event !== event || known.gsi !== gsi)
    if (rest.length < left.length) event.raise = null
    vm.irqEvents = rest
    return 0
  }
  if (vm.gic === null || !vm.gic.initialised) return -errnos.EAGAIN
  if (flags & KVM_IRQFD_FLAG_RESAMPLE && resampled === null) return -errnos.EBADF
  if (left.some((known) => known.event === event)) return -errnos.EBUSY
  vm.irqEvents = [...left, { event, gsi }]
  event.raise = () => {
    const pin = vm.routes === null ? gsi : vm.routes.get(gsi)
    if (pin !== undefined) pulse(vm, pin)
    return !vm.host.traits.irqEventKeepsCount
  }
  // A count that was there stays.
  if (event.hasCount) event.raise()
  return 0
}
