import type { GuestMemoryFd } from '../backend.js'
import { errnos } from '../uapi.js'
import { kvmError } from './errors.js'

/** Memory that can be given to guests: shared, page aligned, and visible to this process while the guest runs. */
export class GuestMemory implements Disposable {
  /** What `Vm.mapMemory` hands to the backend. */
  readonly fd: GuestMemoryFd

  constructor(fd: GuestMemoryFd) {
    this.fd = fd
  }

  /** Bytes. */
  get size(): number {
    return this.fd.size
  }

  /**
   * The memory itself, without a copy. Length 0 after `close()`.
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
   * A copy of `length` bytes from `offset`.
   * @throws KvmError `EFAULT` beyond the end
   */
  read(offset: number, length: number): Uint8Array {
    const bytes = new Uint8Array(length)
    const outcome = this.fd.read(offset, bytes)
    if (outcome < 0) throw kvmError(outcome, { syscall: 'read', remedy: this.#bounds(offset, length) })
    return bytes
  }

  /**
   * Copies `bytes` to `offset`.
   * @throws KvmError `EFAULT` beyond the end
   */
  write(offset: number, bytes: Uint8Array): void {
    const outcome = this.fd.write(offset, bytes)
    if (outcome < 0)
      throw kvmError(outcome, { syscall: 'write', remedy: this.#bounds(offset, bytes.byteLength) })
  }

  #bounds(offset: number, length: number): string {
    return `Asked for ${length} bytes at ${offset} of ${this.size}`
  }

  /** Releases the memory. A VM it is mapped into keeps it until its slot is deleted or the VM is closed. */
  close(): void {
    this.fd.close()
  }

  [Symbol.dispose](): void {
    this.close()
  }
}
