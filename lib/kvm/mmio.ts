import { checkSize, checkUint64, invalidType, outOfRange } from '../arguments.js'
import type { VmFd } from '../backend.js'
import { hex } from '../registers/index.js'
import { errnos, KVM_IOEVENTFD_FLAG_DATAMATCH, KVM_IOEVENTFD_FLAG_DEASSIGN } from '../uapi.js'
import { Connection } from './connection.js'
import { check } from './errors.js'
import { HostEvent } from './event.js'

/** A write of a guest that it did not wait for. Addresses and data are unsigned 64-bit numbers. */
export interface PostedWrite {
  readonly address: bigint
  /** 1, 2, 4 or 8 bytes. */
  readonly size: number
  readonly data: bigint
}

/** Words of an entry that `VmFd.takePosted` fills, and how many entries are taken at once. */
const WORDS = 3
const ENTRIES = 256

/** What the answers need of their VM's handle. */
export interface Posted {
  /** Passes writes on to their receivers; called before an exit is returned, and when some wait while a vCPU runs. */
  deliver(): void
}

/**
 * Device accesses that end no run: the thread that runs a vCPU answers them and goes on, so that each costs no more than the exit
 * itself. Everything else remains an exit `mmio`. Ranges may be added and removed while vCPUs run.
 *
 * @example
 * // An 8250 that is always ready to send, and collects what the guest sends.
 * vm.mmio.constant(0x900_0005n, 1, 0x60n)
 * vm.mmio.posted(0x900_0000n, 1, (writes) => process.stdout.write(Uint8Array.from(writes, ({ data }) => Number(data))))
 */
export class Mmio implements Posted {
  readonly #fd: VmFd
  readonly #receivers = new Map<number, (writes: readonly PostedWrite[]) => void>()
  readonly #entries = new BigUint64Array(WORDS * ENTRIES)
  /** Writes taken, and not yet received. */
  #waiting: [number: number, write: PostedWrite][] = []
  #numbers = 0
  readonly #zones = new Set<Zone>()
  readonly #takeCoalesced: (entries: BigUint64Array) => number

  /** `takeCoalesced` is that of any of the VM's vCPUs. */
  constructor(fd: VmFd, takeCoalesced: (entries: BigUint64Array) => number) {
    this.#fd = fd
    this.#takeCoalesced = takeCoalesced
  }

  /**
   * Answers every read within `size` bytes at `address` with `value`, until it is changed or closed. Writes there are not affected.
   * @param address guest physical address of 64 bits, without memory
   * @param size bytes, 1 to 8; a read of fewer finds its part of the value, which is little-endian
   * @param value at most as wide as `size`
   * @throws KvmError `EEXIST` if it overlaps another constant, `ENOSPC` beyond 64 of them, `EINVAL` at the end of the address space,
   * `ERR_KVM_CLOSED`
   * @throws TypeError for another type; RangeError for another size and for a wider number
   */
  constant(address: bigint, size: number, value: bigint): ConstantRead {
    checkUint64(address, 'address')
    checkSize(size, 'size')
    if (size < 1 || size > 8) throw outOfRange('size', 'from 1 to 8 bytes', size)
    return new ConstantRead(this.#fd, address, size, value)
  }

  /**
   * Posts every write within `size` bytes at `address`: the guest goes on at once, and `receive` gets the writes in batches, in the
   * order in which the VM's vCPUs made them. It gets them before any later exit of the vCPU that made them is returned, and soon
   * while that vCPU is in `run()`; `runSync()` passes them on when it returns. Reads there are not affected. A guest that is 4096
   * writes ahead waits in an exit `mmio`, as without the range: by then `receive` has had the others.
   * @param address guest physical address of 64 bits, without memory
   * @param size bytes, at least 1
   * @param receive an error that it throws is an uncaught exception
   * @throws KvmError `EEXIST` if it overlaps another range of posted writes, `ENOSPC` beyond 64 of them, `EINVAL` beyond the end of
   * the address space, `ERR_KVM_CLOSED`
   * @throws TypeError for another type; RangeError for a size below 1 or a wider number
   */
  posted(address: bigint, size: number, receive: (writes: readonly PostedWrite[]) => void): PostedRange {
    checkUint64(address, 'address')
    checkSize(size, 'size')
    if (size < 1) throw outOfRange('size', 'at least 1 byte', size)
    if (typeof receive !== 'function') throw invalidType('receive', 'a function', receive)
    const number = this.#numbers++
    const outcome = this.#fd.addPosted(address, size, number)
    check(outcome, { syscall: 'mmio.posted', remedy: remedy(outcome, address, size) })
    this.#receivers.set(number, receive)
    return new PostedRange(() => {
      this.#fd.removePosted(address)
      this.deliver()
      this.#receivers.delete(number)
    })
  }

  /**
   * `KVM_IOEVENTFD`: counts every write of `size` bytes at exactly `address` in `event`, on which JavaScript can wait, and lets the
   * guest go on at once. KVM does it by itself: no run ends, and no thread of this process wakes up but the one that waits. The data
   * is lost. Doorbells come before constants and posted writes. Reads are not affected.
   * @param address guest physical address of 64 bits, without memory
   * @param size 1, 2, 4 or 8 bytes; 0 counts writes of every size
   * @param value counts only writes of this value, of at most `size` bytes; other writes remain exits
   * @throws KvmError `EEXIST` if another doorbell gets some of these writes, `EINVAL` at the end of the address space,
   * `ERR_KVM_CLOSED` for a closed VM or event (`virt/kvm/eventfd.c:kvm_assign_ioeventfd`)
   * @throws TypeError for another type; RangeError for another size and for a wider number
   */
  doorbell(address: bigint, size: number, event: HostEvent, value?: bigint): Connection {
    checkUint64(address, 'address')
    checkSize(size, 'size')
    if (![0, 1, 2, 4, 8].includes(size)) throw outOfRange('size', '0, 1, 2, 4 or 8 bytes', size)
    if (!(event instanceof HostEvent)) throw invalidType('event', 'made by createEvent()', event)
    if (value !== undefined && size === 0) throw outOfRange('size', '1, 2, 4 or 8 bytes with a value', size)
    if (value !== undefined) checkWidth(value, size)
    const flags = value === undefined ? 0 : KVM_IOEVENTFD_FLAG_DATAMATCH
    const outcome = this.#fd.ioEventFd(event.fd, address, size, flags, value ?? 0n)
    check(outcome, { syscall: 'KVM_IOEVENTFD', remedy: remedy(outcome, address, size) })
    return new Connection(() => {
      this.#fd.ioEventFd(event.fd, address, size, flags | KVM_IOEVENTFD_FLAG_DEASSIGN, value ?? 0n)
    })
  }

  /**
   * `KVM_REGISTER_COALESCED_MMIO`: KVM itself keeps every write within `size` bytes at `address` in a ring, and the guest goes on at
   * once: no run ends, and no thread wakes up, so this is cheaper than `posted`. `receive` gets the writes in batches, in the order in
   * which the VM's vCPUs made them, before an exit of any vCPU is returned and when {@link deliver} is called. A guest without other
   * exits fills the ring; its next write is then an exit `mmio`, as without the zone, after `receive` got those in the ring. With
   * pages of 4 KiB the ring has room for 169 writes; before Linux 6.12 it could count as full with only 85. If a run is in flight
   * while its vCPU, the last of the VM, is closed, writes of that run can be lost. Reads are not affected. Doorbells come first.
   * @param address guest physical address of 64 bits, without memory
   * @param size bytes, 1 to 0x7fff_ffff: KVM cannot remove a larger zone
   * @param receive an error that it throws is an uncaught exception
   * @throws KvmError `EEXIST` if it overlaps another zone: KVM would remove both at once; `ENOSPC` beyond 1000 zones and other devices
   * inside KVM; `ERR_KVM_CLOSED` (`virt/kvm/coalesced_mmio.c:kvm_vm_ioctl_register_coalesced_mmio`)
   * @throws TypeError for another type; RangeError for another size and beyond the end of the address space
   *
   * @example
   * using zone = vm.mmio.coalesced(0x900_0000n, 4, (writes) => console.log(...writes))
   */
  coalesced(address: bigint, size: number, receive: (writes: readonly PostedWrite[]) => void): PostedRange {
    checkUint64(address, 'address')
    checkSize(size, 'size')
    if (size < 1 || size > MOST_COALESCED) throw outOfRange('size', 'from 1 to 0x7fff_ffff bytes', size)
    const end = address + BigInt(size)
    if (end > 1n << 64n) throw outOfRange('size', 'within the 64-bit address space', size)
    if (typeof receive !== 'function') throw invalidType('receive', 'a function', receive)
    const isTaken = [...this.#zones].some((other) => address < other.end && other.address < end)
    const outcome = isTaken ? -errnos.EEXIST : this.#fd.registerCoalescedMmio(address, size, 0)
    const why =
      outcome === -errnos.ENOSPC
        ? 'KVM has at most 1000 zones and other devices in a VM: a zone may cover a whole device'
        : remedy(outcome, address, size)
    check(outcome, { syscall: 'KVM_REGISTER_COALESCED_MMIO', remedy: why })
    const number = this.#numbers++
    const zone: Zone = { address, end, number }
    this.#zones.add(zone)
    this.#receivers.set(number, receive)
    return new PostedRange(() => {
      this.#fd.unregisterCoalescedMmio(address, size, 0)
      this.deliver()
      this.#zones.delete(zone)
      this.#receivers.delete(number)
    })
  }

  /** Passes on what the guest has posted. Calls of `run()` and `runSync()` do it by themselves. */
  deliver(): void {
    if (this.#receivers.size === 0) return
    this.#take()
    if (this.#zones.size > 0) this.#takeFromRing()
    while (this.#waiting.length > 0) {
      const [number] = this.#waiting[0]!
      const end = this.#waiting.findIndex(([other]) => other !== number)
      const batch = this.#waiting.splice(0, end < 0 ? this.#waiting.length : end)
      try {
        this.#receivers.get(number)?.(batch.map(([, write]) => write))
      } catch (error) {
        // The exit that follows must not be lost with it.
        queueMicrotask(() => {
          throw error
        })
      }
    }
  }

  #take(): void {
    for (let taken = ENTRIES; taken === ENTRIES;) {
      taken = this.#fd.takePosted(this.#entries)
      for (let entry = 0; entry < taken; entry++) {
        const what = this.#entries[WORDS * entry]!
        const address = this.#entries[WORDS * entry + 1]!
        const data = this.#entries[WORDS * entry + 2]!
        const number = Number(BigInt.asUintN(32, what))
        this.#waiting.push([number, { address, size: Number(what >> 32n), data }])
      }
    }
  }

  /** Writes of a zone that was closed meanwhile, or of one that the library did not make, are dropped. */
  #takeFromRing(): void {
    for (let taken = ENTRIES; taken === ENTRIES;) {
      taken = this.#takeCoalesced(this.#entries)
      for (let entry = 0; entry < taken; entry++) {
        const [size, address, data] = this.#entries.subarray(WORDS * entry) as unknown as [
          bigint,
          bigint,
          bigint,
        ]
        const zone = [...this.#zones].find((known) => address >= known.address && address < known.end)
        if (zone !== undefined) this.#waiting.push([zone.number, { address, size: Number(size), data }])
      }
    }
  }
}

/** Addresses whose writes KVM coalesces. */
interface Zone {
  readonly address: bigint
  readonly end: bigint
  readonly number: number
}

/** KVM takes the size of a zone to be removed for a signed number of 32 bits. */
const MOST_COALESCED = 0x7fff_ffff

/** A register that every read finds with the same value; {@link Mmio.constant} makes it. */
export class ConstantRead implements Disposable {
  readonly #fd: VmFd
  readonly #address: bigint
  readonly #size: number
  #value: bigint

  constructor(fd: VmFd, address: bigint, size: number, value: bigint) {
    this.#fd = fd
    this.#address = address
    this.#size = size
    this.#value = this.#set(value)
  }

  /**
   * What reads find. A change affects the next read of any vCPU, also of those that run.
   * @throws KvmError `ERR_KVM_CLOSED` once the VM is closed; TypeError, RangeError for anything but a bigint of the size
   */
  get value(): bigint {
    return this.#value
  }

  set value(value: bigint) {
    this.#value = this.#set(value)
  }

  /** Makes the reads exits again. May be repeated. */
  close(): void {
    this.#fd.removeConstant(this.#address)
  }

  [Symbol.dispose](): void {
    this.close()
  }

  #set(value: bigint): bigint {
    checkWidth(value, this.#size)
    const outcome = this.#fd.setConstant(this.#address, this.#size, value)
    check(outcome, { syscall: 'mmio.constant', remedy: remedy(outcome, this.#address, this.#size) })
    return value
  }
}

/** Addresses whose writes are posted; {@link Mmio.posted} makes it. */
export class PostedRange implements Disposable {
  #close: (() => void) | null

  constructor(close: () => void) {
    this.#close = close
  }

  /** Makes the writes exits again, once those so far have been received. May be repeated. */
  close(): void {
    const close = this.#close
    this.#close = null
    close?.()
  }

  [Symbol.dispose](): void {
    this.close()
  }
}

function remedy(outcome: number, address: bigint, size: number): string | undefined {
  switch (outcome) {
    case -errnos.EEXIST:
      return `Another range overlaps the ${size} bytes at ${hex(address)}: close it first`
    case -errnos.ENOSPC:
      return 'A VM has at most 64 such ranges: a posted range may cover a whole device'
    case -errnos.EINVAL:
      return `The ${size} bytes at ${hex(address)} end beyond the 64-bit address space`
    default:
      return undefined
  }
}

/** @throws TypeError, RangeError */
function checkWidth(value: bigint, size: number): void {
  checkUint64(value, 'value')
  if (value >> BigInt(8 * size) !== 0n) throw outOfRange('value', `at most ${size} bytes wide`, value)
}
