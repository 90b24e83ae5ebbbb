import { checkArray, checkSize } from '../arguments.js'
import type { GuestMemoryFd } from '../backend.js'
import { errnos } from '../uapi.js'
import { kvmError } from './errors.js'

/**
 * Memory for guests: shared, page aligned, and visible to this process while the guest runs. `Kvm.createMemory` makes it.
 *
 * @example
 * using memory = kvm.createMemory(0x10000)
 * memory.write(0, Uint8Array.of(0x00, 0x00, 0x00, 0x14)) // b .
 * vm.mapMemory(0, { address: 0x8000_0000n, memory })
 */
export class GuestMemory implements Disposable {
  /** The handle that `Vm.mapMemory` passes to the backend. */
  readonly fd: GuestMemoryFd

  constructor(fd: GuestMemoryFd) {
    this.fd = fd
  }

  /** Size in bytes. Stays the same after `close()`. */
  get size(): number {
    return this.fd.size
  }

  /** Bytes of a page of the host: slots begin and end at its multiples, and the log of written pages counts in it. */
  get pageSize(): number {
    return this.fd.pageSize
  }

  /**
   * The memory itself, without a copy. Its length is 0 after `close()`.
   * @throws KvmError `EOPNOTSUPP` where the runtime allows no external buffers (Electron): use `read` and `write` there
   */
  get buffer(): ArrayBuffer {
    const { buffer } = this.fd
    if (buffer === null) {
      throw kvmError(-errnos.EOPNOTSUPP, {
        syscall: 'mmap',
        remedy: 'This runtime allows no external buffers: copy with read() and write()',
      })
    }
    return buffer
  }

  /**
   * Returns a copy of `length` bytes from `offset`.
   * @param offset in bytes from the start of this memory
   * @param length in bytes
   * @throws KvmError `EFAULT` beyond the end, `ERR_KVM_CLOSED`
   * @throws TypeError, RangeError for an offset or length that is not a number of bytes
   */
  read(offset: number, length: number): Uint8Array {
    checkSize(offset, 'offset')
    checkSize(length, 'length')
    // Checked first, so that no array is allocated for a read that cannot succeed; a closed memory has an error of its own.
    const bytes = new Uint8Array(offset + length > this.size ? 0 : length)
    const outcome = this.fd.read(offset, bytes)
    this.#check('read', bytes.length < length && outcome === 0 ? -errnos.EFAULT : outcome, offset, length)
    return bytes
  }

  /**
   * Copies `bytes` to `offset`.
   * @param offset in bytes from the start of this memory
   * @param bytes a `Uint8Array`, such as a `Buffer`
   * @throws KvmError `EFAULT` beyond the end, `ERR_KVM_CLOSED`
   * @throws TypeError, RangeError for an offset that is not a number of bytes; TypeError for anything but a `Uint8Array`
   */
  write(offset: number, bytes: Uint8Array): void {
    checkSize(offset, 'offset')
    checkArray(bytes, Uint8Array, 0, 'bytes')
    this.#check('write', this.fd.write(offset, bytes), offset, bytes.byteLength)
  }

  #check(syscall: string, outcome: number, offset: number, length: number): void {
    if (outcome >= 0) return
    const isOutside = outcome === -errnos.EFAULT
    const remedy = isOutside ? `${length} bytes at ${offset} end beyond the memory's ${this.size}` : undefined
    throw kvmError(outcome, { syscall, remedy })
  }

  /**
   * Releases the memory. `close()` may be repeated; every other call then throws `ERR_KVM_CLOSED`. A VM that maps the memory keeps
   * it until its slot is deleted or the VM is closed.
   */
  close(): void {
    this.fd.close()
  }

  [Symbol.dispose](): void {
    this.close()
  }
}
