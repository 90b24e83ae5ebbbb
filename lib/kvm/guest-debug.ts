/** `struct kvm_guest_debug` from options. The fields are those of DBGBCR<n>_EL1 and DBGWCR<n>_EL1 in the Arm ARM. */
import {
  checkBoolean,
  checkChoice,
  checkOptions,
  checkSize,
  checkUint64,
  invalidType,
  outOfRange,
} from '../arguments.js'
import {
  GUEST_DEBUG_WORDS,
  guestDebugRegisters,
  KVM_GUESTDBG_ENABLE,
  KVM_GUESTDBG_SINGLESTEP,
  KVM_GUESTDBG_USE_HW,
  KVM_GUESTDBG_USE_SW_BP,
} from '../uapi.js'

/** Bytes whose access by the guest ends its run. */
export interface Watchpoint {
  /** Virtual address of the first byte, 64 bits. */
  address: bigint
  /** 1 to 8 bytes, which end at a multiple of 8 or before. Default: those up to it. */
  size?: number
  /** Default: both. */
  access?: 'read' | 'write' | 'both'
}

/** How a guest is debugged. */
export interface GuestDebug {
  /** Ends a run after one instruction. Default: false. */
  step?: boolean
  /** Makes the guest's `brk` instructions exits. Default: false. */
  softwareBreakpoints?: boolean
  /** Virtual addresses of instructions, multiples of 4: runs end before them. At most `KVM_CAP_GUEST_DEBUG_HW_BPS`. */
  breakpoints?: readonly bigint[]
  /** At most `KVM_CAP_GUEST_DEBUG_HW_WPS`. */
  watchpoints?: readonly Watchpoint[]
}

const accesses = { read: 1n, write: 2n, both: 3n } as const
/** E, EL1 and EL0 (PMC, PAC). */
const ENABLED = 0x7n
/** BAS of a breakpoint: an A64 instruction. */
const WHOLE_INSTRUCTION = 0xfn << 5n
const LSC = 3n
const BAS = 5n
const GRANULE = 8n

/**
 * Returns the arguments of `VcpuFd.setGuestDebug`.
 * @throws TypeError, RangeError
 */
export function packGuestDebug(
  debug: GuestDebug,
  most: { breakpoints: number; watchpoints: number },
): {
  control: number
  registers: BigUint64Array
} {
  checkOptions(debug, 'debug', ['step', 'softwareBreakpoints', 'breakpoints', 'watchpoints'])
  const { step = false, softwareBreakpoints = false, breakpoints = [], watchpoints = [] } = debug
  checkBoolean(step, 'step')
  checkBoolean(softwareBreakpoints, 'softwareBreakpoints')
  checkList(breakpoints, 'breakpoints', most.breakpoints, 'KVM_CAP_GUEST_DEBUG_HW_BPS')
  checkList(watchpoints, 'watchpoints', most.watchpoints, 'KVM_CAP_GUEST_DEBUG_HW_WPS')
  const registers = new BigUint64Array(GUEST_DEBUG_WORDS)
  for (const [index, address] of breakpoints.entries()) {
    checkUint64(address, `breakpoints[${index}]`)
    if (address % 4n !== 0n) throw outOfRange(`breakpoints[${index}]`, 'a multiple of 4', address)
    registers[guestDebugRegisters.dbg_bcr + index] = ENABLED | WHOLE_INSTRUCTION
    registers[guestDebugRegisters.dbg_bvr + index] = address
  }
  for (const [index, watchpoint] of watchpoints.entries()) {
    const { control, base } = packWatchpoint(watchpoint, `watchpoints[${index}]`)
    registers[guestDebugRegisters.dbg_wcr + index] = control
    registers[guestDebugRegisters.dbg_wvr + index] = base
  }
  const usesHardware = breakpoints.length + watchpoints.length > 0
  const control =
    KVM_GUESTDBG_ENABLE |
    (step ? KVM_GUESTDBG_SINGLESTEP : 0) |
    (softwareBreakpoints ? KVM_GUESTDBG_USE_SW_BP : 0) |
    (usesHardware ? KVM_GUESTDBG_USE_HW : 0)
  return { control, registers }
}

function packWatchpoint(watchpoint: Watchpoint, name: string): { control: bigint; base: bigint } {
  checkOptions(watchpoint, name, ['address', 'size', 'access'])
  const { address, access = 'both' } = watchpoint
  checkUint64(address, `${name}.address`)
  const first = address % GRANULE
  const { size = Number(GRANULE - first) } = watchpoint
  checkSize(size, `${name}.size`)
  if (size < 1 || first + BigInt(size) > GRANULE) {
    throw outOfRange(`${name}.size`, `1 to ${GRANULE - first} bytes, up to the next multiple of 8`, size)
  }
  checkChoice(access, `${name}.access`, ['read', 'write', 'both'])
  const bytes = ((1n << BigInt(size)) - 1n) << first
  return { control: ENABLED | (accesses[access] << LSC) | (bytes << BAS), base: address - first }
}

function checkList(value: unknown, name: string, most: number, capability: string): void {
  if (!Array.isArray(value)) throw invalidType(name, 'an array', value)
  if (value.length > most) throw outOfRange(name, `at most ${most}, this host's ${capability}`, value.length)
}
