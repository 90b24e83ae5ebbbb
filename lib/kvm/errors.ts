import { hex, registerName } from '../registers/index.js'
import { errnos } from '../uapi.js'

/** Codes of failures that are not an errno of the kernel. */
export type KvmErrorCode =
  | 'ERR_KVM_NOT_AVAILABLE'
  | 'ERR_KVM_PERMISSION'
  | 'ERR_KVM_WRONG_ARCHITECTURE'
  | 'ERR_KVM_API_VERSION'
  | 'ERR_KVM_CLOSED'

export interface KvmErrorDetails {
  /** The ioctl, `KVM_SET_ONE_REG`; or `open`. */
  syscall: string
  /** The register the ioctl was about. */
  register?: bigint | undefined
  /** The value that was to be written. */
  value?: bigint | undefined
  /** KVM's id of the vCPU. */
  vcpu?: number | undefined
  /** What the caller can do about it. */
  remedy?: string | undefined
}

/** What KVM refused, or what this library refused before KVM was asked. */
export class KvmError extends Error {
  override readonly name = 'KvmError'
  /** The errno's name, `EBUSY`, or one of `KvmErrorCode`. */
  readonly code: string
  /** The errno as Node gives it: negative, -16 for `EBUSY`; undefined where the kernel was not asked. */
  readonly errno: number | undefined
  /** The ioctl, `KVM_SET_ONE_REG`. */
  readonly syscall: string
  readonly register: { readonly id: bigint; readonly name: string } | undefined
  readonly value: bigint | undefined
  readonly vcpu: number | undefined

  constructor(code: string, errno: number | undefined, problem: string, details: KvmErrorDetails) {
    const { syscall, register, value, vcpu, remedy } = details
    const name = register === undefined ? undefined : registerName(register)
    const where = [
      register === undefined ? '' : ` ${name} (${hex(register)})`,
      value === undefined ? '' : ` = ${hex(value)}`,
      vcpu === undefined ? '' : ` on vCPU ${vcpu}`,
    ].join('')
    super(`${code}: ${syscall}${where}: ${problem}${remedy === undefined ? '' : `. ${remedy}`}`)
    this.code = code
    this.errno = errno
    this.syscall = syscall
    this.register = register === undefined ? undefined : { id: register, name: name! }
    this.value = value
    this.vcpu = vcpu
  }
}

/** Texts of `strerror(3)`, which Node does not offer for an errno that no system call of its own gave. */
const problems: Record<keyof typeof errnos, string> = {
  EPERM: 'operation not permitted',
  ENOENT: 'no such file, register or function',
  EINTR: 'interrupted',
  EIO: 'the VM is dead',
  ENXIO: 'no such device or attribute',
  E2BIG: 'the list is longer than the room given',
  ENOEXEC: 'the vCPU is not initialised',
  EBADF: 'the handle is closed',
  EAGAIN: 'try again',
  ENOMEM: 'out of memory',
  EACCES: 'permission denied',
  EFAULT: 'bad address',
  EBUSY: 'busy, or frozen since the VM first ran',
  EEXIST: 'exists already',
  ENODEV: 'no such device',
  EINVAL: 'invalid argument or value',
  EMFILE: 'too many open files',
  ENOTTY: 'not an ioctl of this kernel',
  ENOSPC: 'no space left',
  ENOSYS: 'not implemented by this kernel',
  EOPNOTSUPP: 'not supported',
  EHWPOISON: 'a memory page with a hardware error',
}

const names = new Map<number, string>(Object.entries(errnos).map(([name, errno]) => [errno, name]))

/** The name of an errno, positive or negative: `EINVAL`; `ERRNO_123` for one KVM is not known to give. */
export function errnoName(errno: number): string {
  return names.get(Math.abs(errno)) ?? `ERRNO_${Math.abs(errno)}`
}

/** What to do where a vCPU answers `EBUSY` because it runs. */
export const IN_FLIGHT = 'A run is in flight on this vCPU: await it, or kick() first'

/** The error for an outcome of `-errno`. */
export function kvmError(outcome: number, details: KvmErrorDetails): KvmError {
  const code = errnoName(outcome)
  if (code === 'EBADF') {
    return new KvmError('ERR_KVM_CLOSED', outcome, 'the handle is closed', details)
  }
  return new KvmError(code, outcome, problems[code as keyof typeof errnos] ?? 'failed', details)
}

/** The `code` of the `KvmError` an action throws; undefined where it succeeds. Any other error is thrown on. */
export function errnoOf(action: () => unknown): string | undefined {
  try {
    action()
    return undefined
  } catch (error) {
    if (error instanceof KvmError) return error.code
    throw error
  }
}

/** Passes an outcome on, or throws when it is `-errno`. */
export function check<T>(outcome: T | number, details: KvmErrorDetails): T
export function check(outcome: number, details: KvmErrorDetails): number
export function check<T>(outcome: T | number, details: KvmErrorDetails): T | number {
  if (typeof outcome === 'number' && outcome < 0) throw kvmError(outcome, details)
  return outcome
}
