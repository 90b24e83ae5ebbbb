import { checkArray, checkSize, checkUint64 } from '../arguments.js'
import { hex } from '../registers/index.js'
import { errnos } from '../uapi.js'
import { kvmError } from './errors.js'
import type { GuestMemory } from './memory.js'

/** Memory of a slot: bytes `offset` to `offset + size` of `memory` at a guest physical address. */
export interface MappedMemory {
  readonly address: bigint
  readonly memory: GuestMemory
  readonly offset: number
  readonly size: number
  /** The guest cannot write it. */
  readonly readonly: boolean
}

/**
 * The guest's memory by its physical addresses, as `Vm.mapMemory` mapped it. KVM's log of written pages does not see these accesses.
 *
 * @example
 * vm.mapMemory(0, { address: 0x4000_0000n, memory })
 * vm.memory.write(0x4000_1000n, Uint8Array.of(1, 2, 3, 4))
 */
export class GuestAddressSpace {
  readonly #slots: () => Iterable<MappedMemory>

  constructor(slots: () => Iterable<MappedMemory>) {
    this.#slots = slots
  }

  /** Returns whether every one of `length` bytes from `address` on is memory; they may lie in adjacent slots. */
  has(address: bigint, length: number): boolean {
    check(address, length)
    return this.#pieces(address, length) !== undefined
  }

  /**
   * Returns a copy of `length` bytes; they may lie in adjacent slots.
   * @param address guest physical address of 64 bits
   * @throws KvmError `EFAULT` where there is no memory, `ERR_KVM_CLOSED` for memory whose handle is closed
   * @throws TypeError, RangeError for an address that is not 64 bits or a length that is not a number of bytes
   */
  read(address: bigint, length: number): Uint8Array {
    check(address, length)
    const pieces = this.#all('read', address, length)
    const bytes = new Uint8Array(length)
    for (const { memory, offset, size, at } of pieces) bytes.set(memory.read(offset, size), at)
    return bytes
  }

  /**
   * Copies `bytes` to guest memory, also to memory that the guest may only read; they may lie in adjacent slots.
   * @param address guest physical address of 64 bits
   * @throws KvmError `EFAULT` where there is no memory, and then writes nothing; `ERR_KVM_CLOSED` for memory whose handle is closed
   * @throws TypeError, RangeError for an address that is not 64 bits; TypeError for anything but a `Uint8Array`
   */
  write(address: bigint, bytes: Uint8Array): void {
    checkUint64(address, 'address')
    checkArray(bytes, Uint8Array, 0, 'bytes')
    for (const { memory, offset, size, at } of this.#all('write', address, bytes.length)) {
      memory.write(offset, bytes.subarray(at, at + size))
    }
  }

  /**
   * Returns the bytes themselves, without a copy: they change with the guest's writes, and its memory with theirs. The array is
   * empty once the memory is closed.
   * @param address guest physical address of 64 bits
   * @throws KvmError `EFAULT` where there is no memory, and for bytes in more than one slot; `EOPNOTSUPP` where the runtime allows no
   * external buffers; `ERR_KVM_CLOSED` for memory whose handle is closed
   * @throws TypeError, RangeError for an address that is not 64 bits or a length that is not a number of bytes
   */
  view(address: bigint, length: number): Uint8Array {
    check(address, length)
    const [piece, ...others] = this.#all('view', address, length)
    if (piece === undefined) return new Uint8Array(0)
    if (others.length > 0) {
      throw kvmError(-errnos.EFAULT, {
        syscall: 'memory.view',
        remedy: `${length} bytes at guest address ${hex(address)} lie in several slots: copy with read() and write()`,
      })
    }
    const { buffer } = piece.memory
    // A closed memory's buffer is empty; read() says so in its own words.
    if (buffer.byteLength === 0) piece.memory.read(piece.offset, 0)
    return new Uint8Array(buffer, piece.offset, length)
  }

  #all(syscall: string, address: bigint, length: number): Piece[] {
    const pieces = this.#pieces(address, length)
    if (pieces !== undefined) return pieces
    throw kvmError(-errnos.EFAULT, {
      syscall: `memory.${syscall}`,
      remedy: `Not all of ${length} bytes at guest address ${hex(address)} are in a slot`,
    })
  }

  #pieces(address: bigint, length: number): Piece[] | undefined {
    const pieces: Piece[] = []
    for (let at = 0; at < length;) {
      const start = address + BigInt(at)
      const slot = [...this.#slots()].find(
        (each) => start >= each.address && start < each.address + BigInt(each.size),
      )
      if (slot === undefined) return undefined
      const skipped = Number(start - slot.address)
      const size = Math.min(length - at, slot.size - skipped)
      pieces.push({ memory: slot.memory, offset: slot.offset + skipped, size, at })
      at += size
    }
    return pieces
  }
}

interface Piece {
  readonly memory: GuestMemory
  readonly offset: number
  readonly size: number
  /** Offset in the bytes that are read or written. */
  readonly at: number
}

function check(address: bigint, length: number): void {
  checkUint64(address, 'address')
  checkSize(length, 'length')
}
