import type { VcpuFd } from '../backend.js'
import {
  decodeRegister,
  encodeRegister,
  hex,
  implementationIds,
  isFeatureIdRegister,
  type RegisterName,
  registerWidth,
} from '../registers/index.js'
import { errnos } from '../uapi.js'
import { check, IN_FLIGHT, KvmError, kvmError } from './errors.js'
import type { FirstRun } from './ordering.js'

/** A register's id, or its name: `KVM_REG_ARM_STD_BMAP`, `ID_AA64PFR0_EL1`, `x0`. */
export type RegisterReference = bigint | RegisterName

/** What `Registers.read` found: one value for each id, and 0 or `-errno` for each. */
export interface BatchResult {
  values: BigUint64Array
  errnos: Int32Array
  /** How many failed. */
  failures: number
}

/** The registers of a vCPU. Values are unsigned, as wide as bits 55:52 of the id say: 8 to 2048 bits. */
export class Registers {
  readonly #fd: VcpuFd
  readonly #vcpu: number
  /** Absent where the kernel's answer is wanted instead of this library's. */
  readonly #firstRun: FirstRun | undefined
  readonly #inFlight: () => boolean

  constructor(fd: VcpuFd, vcpu: number, firstRun: FirstRun | undefined, inFlight: () => boolean) {
    this.#fd = fd
    this.#vcpu = vcpu
    this.#firstRun = firstRun
    this.#inFlight = inFlight
  }

  /**
   * `KVM_GET_ONE_REG`
   * @throws KvmError `ENOENT` for a register this vCPU does not have, `ENOEXEC` before its init, `EPERM` for a register of SVE before
   * `Vcpu.finalize`
   * @throws RangeError for a name that is no register's
   */
  get(register: RegisterReference): bigint {
    const id = typeof register === 'bigint' ? register : encodeRegister(register)
    const value = this.#fd.getOneReg(id)
    if (typeof value === 'bigint') return value
    throw kvmError(value, {
      syscall: 'KVM_GET_ONE_REG',
      register: id,
      vcpu: this.#vcpu,
      remedy: this.#remedy(value, id),
    })
  }

  /**
   * `KVM_SET_ONE_REG`
   *
   * A write that would change what the first run froze (the bitmap firmware registers, the feature ID registers) is refused
   * here, before the kernel is asked; a write of the value already there is the kernel's to answer.
   *
   * @throws KvmError `EBUSY` for a frozen register, `ENOENT` for one this vCPU does not have, `EINVAL` for a value it
   * may not hold, `ENOEXEC` before the vCPU's init, `EPERM` for a register of SVE before `Vcpu.finalize` and for
   * `KVM_REG_ARM64_SVE_VLS` after it
   * @throws RangeError for a name that is no register's and for a value wider than the register
   */
  set(register: RegisterReference, value: bigint): void {
    const id = typeof register === 'bigint' ? register : encodeRegister(register)
    if (value < 0n || value >> BigInt(registerWidth(id)) !== 0n) {
      throw new RangeError(`${value} does not fit the ${registerWidth(id)} bits of register ${hex(id)}`)
    }
    if (this.#firstRun?.started && isFrozenByFirstRun(id)) this.#refuseChange(id, value)
    const outcome = this.#fd.setOneReg(id, value)
    if (outcome < 0) {
      const remedy = this.#remedy(outcome, id)
      throw kvmError(outcome, { syscall: 'KVM_SET_ONE_REG', register: id, value, vcpu: this.#vcpu, remedy })
    }
  }

  /**
   * `KVM_GET_REG_LIST`: the ids, in the kernel's order.
   * @throws KvmError `ENOEXEC` before the vCPU's init, `EPERM` before its SVE is finalized
   */
  list(): BigUint64Array {
    // The count is asked for first: it depends on the host, the kernel and the vCPU's features.
    let room = 0
    for (;;) {
      const list = new BigUint64Array(1 + room)
      list[0] = BigInt(room)
      const outcome = this.#fd.getRegList(list)
      const count = Number(list[0])
      if (outcome === -errnos.E2BIG && count > room) {
        room = count
        continue
      }
      check(outcome, { syscall: 'KVM_GET_REG_LIST', vcpu: this.#vcpu, remedy: this.#remedy(outcome) })
      return list.subarray(1, 1 + count)
    }
  }

  /**
   * `KVM_GET_ONE_REG` for each id of a register of at most 64 bits, in one crossing to native code. Failures are told, not thrown: an id
   * of a wider register is `EINVAL`, and `get` reads it.
   * @throws KvmError `ERR_KVM_CLOSED` once the vCPU is closed, `EBUSY` while a run is in flight
   */
  read(ids: BigUint64Array): BatchResult {
    const values = new BigUint64Array(ids.length)
    const errnoOf = new Int32Array(ids.length)
    const outcome = this.#fd.getRegs(ids, values, errnoOf)
    const remedy = this.#remedy(outcome)
    const failures = check(outcome, { syscall: 'KVM_GET_ONE_REG', vcpu: this.#vcpu, remedy })
    return { values, errnos: errnoOf, failures }
  }

  /**
   * `KVM_SET_ONE_REG` for each id of at most 64 bits in one crossing, all of them tried: 0 or `-errno` for each.
   * @throws KvmError `EBUSY`, before anything is written, where one would change what the first run froze
   */
  write(ids: BigUint64Array, values: BigUint64Array): Int32Array {
    if (this.#firstRun?.started) {
      for (const [index, id] of ids.entries()) {
        if (isFrozenByFirstRun(id)) this.#refuseChange(id, values[index] ?? 0n)
      }
    }
    const errnoOf = new Int32Array(ids.length)
    const outcome = this.#fd.setRegs(ids, values, errnoOf)
    check(outcome, { syscall: 'KVM_SET_ONE_REG', vcpu: this.#vcpu, remedy: this.#remedy(outcome) })
    return errnoOf
  }

  #refuseChange(id: bigint, value: bigint): void {
    const current = this.#fd.getOneReg(id)
    if (typeof current !== 'bigint' || current === value) return
    throw new KvmError('EBUSY', undefined, 'the VM has started, which froze this register', {
      syscall: 'KVM_SET_ONE_REG',
      register: id,
      value,
      vcpu: this.#vcpu,
      remedy:
        `It holds ${hex(current)}. Set it on a new VM before the first run of any vCPU` +
        ` (or open KVM with { ordering: 'kernel' } to have the kernel answer)`,
    })
  }

  #remedy(outcome: number, id?: bigint): string | undefined {
    if (outcome === -errnos.EBUSY && this.#inFlight()) return IN_FLIGHT
    if (outcome === -errnos.ENOEXEC) return 'Call init() on this vCPU first'
    if (outcome === -errnos.EPERM)
      return 'Call finalize() on this vCPU first: its SVE vector lengths are still open'
    if (id === undefined) return undefined
    if (outcome === -errnos.ENOENT) return 'This vCPU has no such register: list() tells which it has'
    return undefined
  }
}

const CLIDR_EL1 = encodeRegister('CLIDR_EL1')

/**
 * Whether the first run freezes a register: the bitmap firmware registers, and what tells of the CPU but CLIDR_EL1 and MPIDR_EL1, which
 * are each vCPU's own.
 */
function isFrozenByFirstRun(id: bigint): boolean {
  if (implementationIds.includes(id)) return true
  return isFeatureIdRegister(id) ? id !== CLIDR_EL1 : decodeRegister(id).space === 'bitmap'
}
