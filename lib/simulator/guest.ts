/**
 * The few A64 instructions needed for a guest that calls its hypervisor and reports to userspace: `hvc`, `smc`, `str` and `strb`
 * with an unsigned offset, `mrs` of the registers whose content the report records, `wfi`, `nop` and `b .`, with the MMU off. Other
 * guest code is not executed.
 */
import { arm64Id, coprocessors, encodeRegister, hex, registerName, sizes } from '../registers/index.js'
import { guestRead, guestReadIds } from '../report/machine.js'
import { registerValue } from '../report/registers.js'
import { exitReasons, kvmRun } from '../uapi.js'
import { SimulatorError } from './errors.js'
import type { Continuation, RawExit } from './exits.js'
import {
  generalRegister,
  guestRegister,
  PC,
  setGeneralRegister,
  setGuestRegister,
} from './guest-registers.js'
import { breakpointAt, isStepped, softwareBreakpoint, stepExit, watchpointAt } from './guest-debug.js'
import { answerCall } from './hypercalls/call.js'
import { faultStore, readGuestMemory, writeGuestMemory } from './memory-slots.js'
import type { VcpuState } from './state.js'
import { waitForInterrupt } from './vcpu-events.js'

const PSTATE = encodeRegister('pstate')
const SCTLR_EL1 = encodeRegister('SCTLR_EL1')
const SP_EL1 = encodeRegister('sp_el1')
const MODE = 0x1fn
const EL1H = 0x5n
const MMU_ON = 1n

const WFI = 0xd503_207f
const NOP = 0xd503_201f
/** `brk`, without its comment in bits 20:5. */
const BRK = 0xd420_0000
const STAY = 0x1400_0000
/** `mrs`, without the register read (bits 19:5) and the register written (bits 4:0). */
const MRS = 0xd530_0000

/**
 * Runs the guest until it waits without end (`wait`), because no interrupt comes or it loops, or until an exit.
 * @throws SimulatorError `ERR_KVM_SIMULATOR_NO_GUEST_CODE` for any other code
 */
export function runGuest(vcpu: VcpuState): 'wait' | RawExit {
  for (;;) {
    const pc = guestRegister(vcpu, PC)
    const instruction = readGuestMemory(vcpu.vm, pc, 4)?.getUint32(0, true)
    // Without memory there every fetch faults, including the one of the handler.
    if (instruction === undefined) return 'wait'
    const breakpoint = breakpointAt(vcpu, pc)
    if (breakpoint !== null) return breakpoint
    const continuation = execute(vcpu, pc, instruction)
    if (continuation !== 'on') return continuation
    if (isStepped(vcpu)) return stepExit()
  }
}

function execute(vcpu: VcpuState, pc: bigint, instruction: number): Continuation {
  const mode = guestRegister(vcpu, PSTATE) & MODE
  const sctlr = vcpu.file!.slots.get(SCTLR_EL1)
  const isMmuOn = sctlr !== undefined && (vcpu.values[sctlr]! & MMU_ON) !== 0n
  if (mode !== EL1H || isMmuOn) throw notExecuted(pc, instruction)
  if ((instruction & 0xffe0_001f) >>> 0 === BRK) {
    const exit = softwareBreakpoint(vcpu, (instruction >>> 5) & 0xffff)
    if (exit !== null) return exit
  }
  if (instruction === STAY) return isStepped(vcpu) ? 'on' : 'wait'
  const store = storeOf(vcpu, instruction)
  if (store !== null) return executeStore(vcpu, store, instruction)
  if ((instruction & 0xfff0_0000) >>> 0 === MRS) return executeRead(vcpu, pc, instruction)
  const conduit = conduits.get((instruction & 0xffe0_001f) >>> 0)
  const isWait = instruction === WFI
  if (conduit === undefined && !isWait && instruction !== NOP) throw notExecuted(pc, instruction)
  if (instruction !== NOP) refuseStep(vcpu, pc, instruction)
  setGuestRegister(vcpu, PC, pc + 4n)
  if (conduit !== undefined) return answerCall(vcpu, conduit, (instruction >>> 5) & 0xffff)
  if (isWait) vcpu.counts.wfi++
  return isWait ? waitForInterrupt(vcpu) : 'on'
}

/** Reads a register of the CPU into a general register. */
function executeRead(vcpu: VcpuState, pc: bigint, instruction: number): Continuation {
  // Bits 20:5 are the index of KVM's id.
  const id = arm64Id(sizes.U64, coprocessors.SYSREG, (instruction >>> 5) & 0xffff)
  if (!guestReadIds.includes(id)) throw notExecuted(pc, instruction)
  const target = instruction & 31
  if (target !== 31) setGeneralRegister(vcpu, target, readOfCpu(vcpu, id))
  setGuestRegister(vcpu, PC, pc + 4n)
  return 'on'
}

/** A register that userspace has changed reads as the VM's, any other as the CPU's. */
function readOfCpu(vcpu: VcpuState, id: bigint): bigint {
  const { report } = vcpu.vm.host
  const current = vcpu.file!.byId.get(id)?.read(vcpu)
  const fresh = registerValue(report, id)
  if (typeof current === 'bigint' && fresh !== undefined && current !== fresh) return current
  const recorded = guestRead(report, id)
  if (recorded !== undefined) return recorded
  throw new SimulatorError(
    'ERR_KVM_SIMULATOR_NOT_RECORDED',
    `The report of ${report.host.release} does not record what a guest reads from ${registerName(id)}. Probe the host again.`,
  )
}

/** Handlers by the instruction without its immediate. */
const conduits = new Map([
  [0xd400_0002, 'hvc' as const],
  [0xd400_0003, 'smc' as const],
])

interface Store {
  address: bigint
  bytes: Uint8Array<ArrayBuffer>
}

/** STR and STRB (immediate, unsigned offset): size in 31:30, offset in 21:10 counted in that size, base in 9:5, source in 4:0. */
function storeOf(vcpu: VcpuState, instruction: number): Store | null {
  if ((instruction & 0x3fc0_0000) !== 0x3900_0000) return null
  const size = 1 << (instruction >>> 30)
  const base = (instruction >>> 5) & 31
  const offset = BigInt(((instruction >>> 10) & 0xfff) * size)
  const start = base === 31 ? guestRegister(vcpu, SP_EL1) : generalRegister(vcpu, base)
  const value = BigUint64Array.of(generalRegister(vcpu, instruction & 31))
  return { address: BigInt.asUintN(64, start + offset), bytes: new Uint8Array(value.buffer, 0, size) }
}

/** Stores to memory, or exits to userspace, which continues the guest by running it again. */
function executeStore(vcpu: VcpuState, { address, bytes }: Store, instruction: number): Continuation {
  const watchpoint = watchpointAt(vcpu, address, bytes.length)
  if (watchpoint !== null) return watchpoint
  const full = faultStore(vcpu, address, bytes.length)
  if (full !== null) return full
  if (writeGuestMemory(vcpu, address, bytes, 'guest')) {
    completeStore(vcpu)
    return 'on'
  }
  refuseStep(vcpu, guestRegister(vcpu, PC), instruction)
  vcpu.storePending = true
  const data = new Uint8Array(8)
  data.set(bytes)
  return {
    reason: exitReasons.KVM_EXIT_MMIO,
    words: [
      [kvmRun.mmio.phys_addr, address],
      [kvmRun.mmio.data, new DataView(data.buffer).getBigUint64(0, true)],
      // The same 64-bit word holds is_write behind it.
      [kvmRun.mmio.len, (1n << 32n) | BigInt(bytes.length)],
    ],
  }
}

/** Steps over a store. */
export function completeStore(vcpu: VcpuState): void {
  vcpu.storePending = false
  setGuestRegister(vcpu, PC, BigInt.asUintN(64, guestRegister(vcpu, PC) + 4n))
}

/**
 * A step over what KVM itself emulates ends in a way that depends on the kernel, and no report records it.
 * @throws SimulatorError `ERR_KVM_SIMULATOR_NO_GUEST_CODE`
 */
function refuseStep(vcpu: VcpuState, pc: bigint, instruction: number): void {
  if (isStepped(vcpu)) throw notExecuted(pc, instruction, ', and steps over none that KVM emulates')
}

function notExecuted(pc: bigint, instruction: number, more = ''): SimulatorError {
  const word = `0x${instruction.toString(16).padStart(8, '0')}`
  return new SimulatorError(
    'ERR_KVM_SIMULATOR_NO_GUEST_CODE',
    `The simulator executes no guest code but hypercalls, stores and a few register reads at EL1 with the MMU off${more}; at ${hex(pc)} is ${word}.`,
  )
}
