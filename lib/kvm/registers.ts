import { asBigint, checkArray, invalidType, outOfRange } from '../arguments.js'
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
import type { RuntimeText } from '../literals.js'
import { errnos } from '../uapi.js'
import { check, IN_FLIGHT, KvmError, kvmError } from './errors.js'
import type { FirstRun } from './ordering.js'

/** A register's id, or its name: `KVM_REG_ARM_STD_BMAP`, `ID_AA64PFR0_EL1`, `x0`. */
export type RegisterReference = bigint | RegisterName

/** The result of `Registers.read`. */
export interface BatchResult {
  /** One value for each id; 0n if the read failed. */
  readonly values: BigUint64Array
  /** For each id 0, or the errno as a negative number. */
  readonly errnos: Int32Array
  /** How many reads failed. */
  readonly failures: number
}

/** What `Registers` uses of its vCPU. */
export interface RegistersOwner {
  /** KVM's id. */
  readonly id: number
  /** Absent if only the kernel enforces the order. */
  readonly firstRun: FirstRun | undefined
  inFlight(): boolean
}

/**
 * The registers of a vCPU. Values are unsigned; bits 55:52 of the id give the width, 8 to 2048 bits.
 *
 * @example
 * vcpu.registers.set('pc', 0x8000_0000n)
 * vcpu.registers.get('ID_AA64PFR0_EL1')
 */
export class Registers {
  readonly #fd: VcpuFd
  readonly #owner: RegistersOwner

  constructor(fd: VcpuFd, owner: RegistersOwner) {
    this.#fd = fd
    this.#owner = owner
  }

  /**
   * `KVM_GET_ONE_REG`
   * @param register its name, or its id of 64 bits
   * @returns the value, an unsigned number of 8 to 2048 bits
   * @throws KvmError `ENOENT` for a register this vCPU does not have, `ENOEXEC` before its init, `EPERM` for an SVE register before
   * `Vcpu.finalize`, `EBUSY` while a run is in flight, `ERR_KVM_CLOSED`
   * @throws RangeError for an unknown name, and for an id that no register can have
   * @throws TypeError for anything but a string or a bigint
   */
  get<Given extends string>(register: RegisterReference | RuntimeText<Given>): bigint {
    const id = idOf(register)
    const value = this.#fd.getOneReg(id)
    if (typeof value === 'bigint') return value
    throw kvmError(value, {
      syscall: 'KVM_GET_ONE_REG',
      register: id,
      vcpu: this.#owner.id,
      remedy: this.#remedy(value, id),
    })
  }

  /**
   * `KVM_SET_ONE_REG`
   *
   * This library refuses a write that would change a register frozen by the first run (the bitmap firmware registers, the feature
   * ID registers), without calling the kernel. It passes a write of the current value on to the kernel.
   *
   * @throws KvmError `EBUSY` for a frozen register, `ENOENT` for one this vCPU does not have, `EINVAL` for a value it
   * may not hold, `ENOEXEC` before the vCPU's init, `EPERM` for a register of SVE before `Vcpu.finalize` and for
   * `KVM_REG_ARM64_SVE_VLS` after it, `EBUSY` while a run is in flight, `ERR_KVM_CLOSED`
   * @throws RangeError for an unknown name, for an id that no register can have, and for a value wider than the register
   * @throws TypeError for another type
   */
  set<Given extends string>(register: RegisterReference | RuntimeText<Given>, value: bigint): void {
    const id = idOf(register)
    if (typeof value !== 'bigint') throw invalidType('value', `a bigint${asBigint(value)}`, value)
    if (value < 0n || value >> BigInt(registerWidth(id)) !== 0n) {
      const what = `an unsigned bigint that fits the ${registerWidth(id)} bits of register ${hex(id)}`
      throw outOfRange('value', what, value)
    }
    if (this.#owner.firstRun?.started && isFrozenByFirstRun(id)) this.#refuseChange(id, value)
    const outcome = this.#fd.setOneReg(id, value)
    if (outcome < 0) {
      const remedy = this.#remedy(outcome, id)
      throw kvmError(outcome, {
        syscall: 'KVM_SET_ONE_REG',
        register: id,
        value,
        vcpu: this.#owner.id,
        remedy,
      })
    }
  }

  /**
   * `KVM_GET_REG_LIST`: the ids, in the kernel's order.
   * @throws KvmError `ENOEXEC` before the vCPU's init, `EPERM` before its SVE is finalized, `EBUSY` while a run is in flight,
   * `ERR_KVM_CLOSED`
   */
  list(): BigUint64Array {
    // The first call reports the count, which depends on the host, the kernel and the vCPU's features.
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
      check(outcome, { syscall: 'KVM_GET_REG_LIST', vcpu: this.#owner.id, remedy: this.#remedy(outcome) })
      return list.subarray(1, 1 + count)
    }
  }

  /**
   * `KVM_GET_ONE_REG` for each id of a register of at most 64 bits, in one crossing to native code. Returns failures instead of
   * throwing them. The id of a wider register fails with `EINVAL`; read it with `get`.
   * @throws KvmError `ERR_KVM_CLOSED` once the vCPU is closed, `EBUSY` while a run is in flight
   * @throws TypeError for anything but a `BigUint64Array`
   *
   * @example
   * const { values } = vcpu.registers.read(BigUint64Array.of(encodeRegister('x0'), encodeRegister('pc')))
   */
  read(ids: BigUint64Array): BatchResult {
    checkArray(ids, BigUint64Array, 0, 'ids')
    const values = new BigUint64Array(ids.length)
    const errnoOf = new Int32Array(ids.length)
    const outcome = this.#fd.getRegs(ids, values, errnoOf)
    const remedy = this.#remedy(outcome)
    const failures = check(outcome, { syscall: 'KVM_GET_ONE_REG', vcpu: this.#owner.id, remedy })
    return { values, errnos: errnoOf, failures }
  }

  /**
   * `KVM_SET_ONE_REG` for each id of at most 64 bits in one crossing. Continues after a failure, and returns 0 or `-errno` for each
   * id.
   * @param values one for each id
   * @throws KvmError `EBUSY`, before anything is written, if one write would change a frozen register, and while a run is in
   * flight; `ERR_KVM_CLOSED`
   * @throws TypeError for anything but two `BigUint64Array`s; RangeError for fewer values than ids
   */
  write(ids: BigUint64Array, values: BigUint64Array): Int32Array {
    checkArray(ids, BigUint64Array, 0, 'ids')
    checkArray(values, BigUint64Array, ids.length, 'values')
    if (this.#owner.firstRun?.started) {
      for (const [index, id] of ids.entries()) {
        if (isFrozenByFirstRun(id)) this.#refuseChange(id, values[index]!)
      }
    }
    const errnoOf = new Int32Array(ids.length)
    const outcome = this.#fd.setRegs(ids, values, errnoOf)
    check(outcome, { syscall: 'KVM_SET_ONE_REG', vcpu: this.#owner.id, remedy: this.#remedy(outcome) })
    return errnoOf
  }

  #refuseChange(id: bigint, value: bigint): void {
    const current = this.#fd.getOneReg(id)
    if (typeof current !== 'bigint' || current === value) return
    throw new KvmError('EBUSY', undefined, 'the VM has started, which froze this register', {
      syscall: 'KVM_SET_ONE_REG',
      register: id,
      value,
      vcpu: this.#owner.id,
      remedy:
        `It holds ${hex(current)}. Set it on a new VM before the first run of any vCPU` +
        ` (or open KVM with { ordering: 'kernel' } to let the kernel answer)`,
    })
  }

  #remedy(outcome: number, id?: bigint): string | undefined {
    if (outcome === -errnos.EBUSY && this.#owner.inFlight()) return IN_FLIGHT
    if (outcome === -errnos.EBUSY) return 'The first run of any vCPU froze it: set it on a new VM'
    if (outcome === -errnos.ENOEXEC) return 'Call init() on this vCPU first'
    if (outcome === -errnos.EPERM)
      return 'Call finalize() on this vCPU first: its SVE vector lengths are not settled yet'
    if (id === undefined) return undefined
    if (outcome === -errnos.ENOENT) return 'This vCPU has no such register: list() returns those it has'
    return undefined
  }
}

function idOf(register: bigint | string): bigint {
  if (typeof register === 'bigint') return register
  if (typeof register === 'string') return encodeRegister(register)
  throw invalidType('register', "a name such as 'x0', or an id, which is a bigint", register)
}

const CLIDR_EL1 = encodeRegister('CLIDR_EL1')

/**
 * Returns whether the first run freezes a register. It freezes the bitmap firmware registers and the registers that describe the
 * CPU, except CLIDR_EL1 and MPIDR_EL1, which belong to each vCPU.
 */
function isFrozenByFirstRun(id: bigint): boolean {
  if (implementationIds.includes(id)) return true
  return isFeatureIdRegister(id) ? id !== CLIDR_EL1 : decodeRegister(id).space === 'bitmap'
}
