import { hex, registerName } from '../registers/index.js'
import { errnos } from '../uapi.js'

/** Codes of failures that have no errno of the kernel. */
export type KvmErrorCode =
  | 'ERR_KVM_NOT_AVAILABLE'
  | 'ERR_KVM_PERMISSION'
  | 'ERR_KVM_WRONG_ARCHITECTURE'
  | 'ERR_KVM_API_VERSION'
  | 'ERR_KVM_CLOSED'
  | 'ERR_KVM_NO_READ_PENDING'

export interface KvmErrorDetails {
  /** The ioctl that failed, such as `KVM_SET_ONE_REG`; or `open`. */
  syscall: string
  /** The register the call was about. */
  register?: bigint | undefined
  /** The device attribute the call was about. */
  attribute?: { readonly group: number; readonly attribute: bigint; readonly groupName?: string } | undefined
  /** The value the call would have written. */
  value?: bigint | undefined
  /** KVM's id of the vCPU. */
  vcpu?: number | undefined
  /** What the caller can do about it. */
  remedy?: string | undefined
}

/**
 * Thrown when KVM refuses a call, and when this library refuses one before it calls KVM. Match on `code`.
 *
 * @example
 * try {
 *   vcpu.registers.set('KVM_REG_ARM_STD_BMAP', 0n)
 * } catch (error) {
 *   if (error instanceof KvmError && error.code === 'EBUSY') console.error('the VM has started')
 *   else throw error
 * }
 */
export class KvmError extends Error {
  override readonly name = 'KvmError'
  /** The errno's name, `EBUSY`, or one of `KvmErrorCode`. */
  readonly code: string
  /** The errno as Node represents it: negative, -16 for `EBUSY`; undefined if the kernel was not called. */
  readonly errno: number | undefined
  /** The ioctl, `KVM_SET_ONE_REG`. */
  readonly syscall: string
  readonly register: { readonly id: bigint; readonly name: string } | undefined
  /** The device attribute: its group (32 bits) and its number in the group (64 bits). */
  readonly attribute: { readonly group: number; readonly attribute: bigint } | undefined
  /** The value the call would have written; for an attribute's data, the first bytes (up to 8) as a little-endian number. */
  readonly value: bigint | undefined
  /** KVM's id of the vCPU. */
  readonly vcpu: number | undefined

  constructor(code: string, errno: number | undefined, problem: string, details: KvmErrorDetails) {
    const { syscall, register, attribute, value, vcpu, remedy } = details
    const name = register === undefined ? undefined : registerName(register)
    const groupName = attribute?.groupName === undefined ? '' : ` (${attribute.groupName})`
    const where = [
      register === undefined ? '' : ` ${name} (${hex(register)})`,
      attribute === undefined
        ? ''
        : ` group ${attribute.group}${groupName} attribute ${hex(attribute.attribute)}`,
      value === undefined ? '' : ` = ${hex(value)}`,
      vcpu === undefined ? '' : ` on vCPU ${vcpu}`,
    ].join('')
    super(`${code}: ${syscall}${where}: ${problem}${remedy === undefined ? '' : `. ${remedy}`}`)
    this.code = code
    this.errno = errno
    this.syscall = syscall
    this.register = register === undefined ? undefined : { id: register, name: name! }
    this.attribute = attribute && { group: attribute.group, attribute: attribute.attribute }
    this.value = value
    this.vcpu = vcpu
  }
}

/** Texts of `strerror(3)`: Node offers them only for errnos of its own system calls. */
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
  EBUSY: 'device or resource busy',
  EEXIST: 'exists already',
  ENODEV: 'no such device',
  EINVAL: 'invalid argument or value',
  ENFILE: 'too many open files in the system',
  EMFILE: 'too many open files',
  ENOTTY: 'not an ioctl of this kernel',
  ENOSPC: 'no space left',
  ENOSYS: 'not implemented by this kernel',
  EOPNOTSUPP: 'not supported',
  EHWPOISON: 'a memory page with a hardware error',
}

const names = new Map<number, string>(Object.entries(errnos).map(([name, errno]) => [errno, name]))

/** Returns the name of an errno, positive or negative: `EINVAL`; `ERRNO_123` for one that KVM is not known to return. */
export function errnoName(errno: number): string {
  return names.get(Math.abs(errno)) ?? `ERRNO_${Math.abs(errno)}`
}

/** The remedy when a vCPU returns `EBUSY` because it runs. */
export const IN_FLIGHT = 'A run is in flight on this vCPU: await it, or kick() first'

/** Remedies for errnos that any call can return, where the call has none of its own. */
const commonRemedies = new Map<number, string>([
  [errnos.EMFILE, 'Close handles or files, or raise the limit of open files of this process'],
  [errnos.ENFILE, 'Close files, or raise fs.file-max'],
])

/** The remedy when a call that needs a thread returns `EAGAIN`. */
export const NO_THREAD =
  'The system has no thread left for it: close vCPUs or events, or raise RLIMIT_NPROC or the cgroup’s pids.max'

/** Makes the error for an outcome of `-errno`. */
export function kvmError(outcome: number, details: KvmErrorDetails): KvmError {
  const code = errnoName(outcome)
  if (code === 'EBADF') {
    return new KvmError('ERR_KVM_CLOSED', outcome, 'the handle is closed', details)
  }
  const remedy = details.remedy ?? commonRemedies.get(-outcome)
  return new KvmError(code, outcome, problems[code as keyof typeof errnos] ?? 'failed', {
    ...details,
    remedy,
  })
}

/**
 * Errnos that come from the state of this machine at this moment and say nothing about KVM. `EFAULT` is an answer if the address is
 * meant to fault, and it can be an exit of `KVM_RUN`.
 */
const accidents: ReadonlySet<number> = new Set([
  -errnos.ENOMEM,
  -errnos.EMFILE,
  -errnos.ENFILE,
  -errnos.EFAULT,
])

/** Throws the error for an accident, so that it does not count as an answer of the host. */
export function refuseAccident(outcome: number, details: KvmErrorDetails): void {
  if (!accidents.has(outcome)) return
  throw kvmError(outcome, {
    ...details,
    remedy:
      'This is no answer of the host to record: try again when the machine has memory and file descriptors to spare',
  })
}

/** Returns whether KVM refused a call: not by accident, and not because the handle is closed. */
export function isRefusal(error: unknown): error is KvmError {
  if (!(error instanceof KvmError) || error.code === 'ERR_KVM_CLOSED') return false
  return error.errno === undefined || !accidents.has(error.errno)
}

/** Returns the `code` of the refusal an action throws; undefined if the action succeeds. Rethrows any other error. */
export function errnoOf(action: () => unknown): string | undefined {
  try {
    action()
    return undefined
  } catch (error) {
    if (isRefusal(error)) return error.code
    throw error
  }
}

/** Returns the outcome, or throws if it is `-errno`. */
export function check<T>(outcome: T | number, details: KvmErrorDetails): T
export function check(outcome: number, details: KvmErrorDetails): number
export function check<T>(outcome: T | number, details: KvmErrorDetails): T | number {
  if (typeof outcome === 'number' && outcome < 0) throw kvmError(outcome, details)
  return outcome
}
