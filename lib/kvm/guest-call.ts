/**
 * A stub guest that makes one hypercall, or reads the few registers that a guest reads from the CPU itself: userspace has no other
 * way to see what KVM answers a guest. The stub is the same few instructions on every VM, so results do not depend on the guest that
 * happens to be loaded.
 */
import type {
  Conduit,
  GuestCall,
  GuestCallOutcome,
  GuestMemoryFd,
  SystemFd,
  VcpuFd,
  VmFd,
} from '../backend.js'
import { encodeRegister } from '../registers/index.js'
import { errnos, exitReasons, kvmRun } from '../uapi.js'
import { withImmediateExit } from './immediate-exit.js'

/** Guest physical address of the stub's code, in a memory slot of its own. */
export const STUB_ADDRESS = 0x0f00_0000n
/** Slot of that memory. */
export const STUB_SLOT = 500
/** Bytes of that memory: the largest page size a host can have. */
export const STUB_SIZE = 0x1_0000
/** An address without memory: the store to it ends the run. */
const DOORBELL = STUB_ADDRESS + BigInt(STUB_SIZE)

/** str wzr, [x7] */
const RING = 0xb900_00ff
/** b . */
const STAY = 0x1400_0000

const program = Uint32Array.of(
  0xd400_0002, // hvc #0
  RING,
  STAY,
  STAY,
  0xd400_0003, // smc #0
  RING,
  STAY,
  STAY,
  // The order of guestReadIds in lib/report/machine.ts.
  0xd53b_e000, // mrs x0, CNTFRQ_EL0
  0xd53b_0021, // mrs x1, CTR_EL0
  0xd53b_00e2, // mrs x2, DCZID_EL0
  0xd538_0003, // mrs x3, MIDR_EL1
  RING,
  STAY,
)
const entries: Readonly<Record<Conduit | 'read', bigint>> = {
  hvc: STUB_ADDRESS,
  smc: STUB_ADDRESS + 16n,
  read: STUB_ADDRESS + 32n,
}

/** x0 to x7, then pc. */
const registers = BigUint64Array.from([...Array.from({ length: 8 }, (_, n) => `x${n}`), 'pc'], encodeRegister)
const PSTATE = encodeRegister('pstate')
const AARCH32 = 0x10n
const EXCEPTION_LEVEL = 0xcn

/** Maps the stub guest's code into a VM. Returns the memory, which the caller closes with the VM, or `-errno`. */
export function mapStub(system: SystemFd, vm: VmFd): GuestMemoryFd | number {
  const memory = unobserved(system).createMemory(STUB_SIZE)
  if (typeof memory === 'number') return memory
  const region = { slot: STUB_SLOT, flags: 0, address: STUB_ADDRESS, memory, offset: 0, size: STUB_SIZE }
  let outcome = -errnos.EINVAL
  try {
    const written = memory.write(0, new Uint8Array(program.buffer))
    outcome = written < 0 ? written : unobserved(vm).setUserMemoryRegion(region)
  } finally {
    if (outcome !== 0) memory.close()
  }
  return outcome === 0 ? memory : outcome
}

/** Follows a chain of observing handles to the underlying one. */
export function unobserved<Fd extends { readonly observed?: Fd }>(fd: Fd): Fd {
  return fd.observed === undefined ? fd : unobserved(fd.observed)
}

/**
 * Makes one guest call on a vCPU whose VM has the stub, and restores the guest's own registers after it.
 *
 * @param call `args` are x0 to x6; missing ones are 0
 * @param run `KVM_RUN` on the handle it receives: 0 or `-errno`
 */
export function callFromGuest(
  vcpu: VcpuFd,
  call: GuestCall,
  run: (vcpu: VcpuFd) => number,
): GuestCallOutcome {
  if (vcpu.observed === undefined) return runStub(vcpu, call, run)
  const outcome = callFromGuest(vcpu.observed, call, run)
  vcpu.noteGuestCall?.(call, outcome)
  return outcome
}

/**
 * Lets a guest read CNTFRQ_EL0, CTR_EL0, DCZID_EL0 and MIDR_EL1 on a vCPU whose VM has the stub, and restores the guest's own
 * registers after it. No trace records this.
 *
 * @param run as for `callFromGuest`
 * @returns the values in that order, or `-errno`: `-EIO` if the guest did not get so far
 */
export function readFromGuest(vcpu: VcpuFd, run: (vcpu: VcpuFd) => number): readonly bigint[] | number {
  const found = runStub(unobserved(vcpu), { conduit: 'read', args: [] }, run)
  if (typeof found === 'number') return found
  return found.returned ? found.x : Math.min(found.outcome, 0) || -errnos.EIO
}

function runStub(
  vcpu: VcpuFd,
  { conduit, args }: Pick<GuestCall, 'args'> & { conduit: keyof typeof entries },
  run: (vcpu: VcpuFd) => number,
): GuestCallOutcome {
  const pstate = vcpu.getOneReg(PSTATE)
  if (typeof pstate === 'number') return pstate
  // The stub is A64 code, and its hvc and smc are undefined at EL0.
  if ((pstate & AARCH32) !== 0n || (pstate & EXCEPTION_LEVEL) === 0n) return -errnos.EOPNOTSUPP
  const before = new BigUint64Array(registers.length)
  const outcomes = new Int32Array(registers.length)
  const read = firstFailure(vcpu.getRegs(registers, before, outcomes), outcomes)
  if (read < 0) return read
  const during = BigUint64Array.from(registers, (_, n) => args[n] ?? 0n)
  during[7] = DOORBELL
  during[8] = entries[conduit]
  let found: GuestCallOutcome = 0
  let restored = 0
  try {
    found = firstFailure(vcpu.setRegs(registers, during, outcomes), outcomes)
    if (found === 0) found = enterStub(vcpu, run)
  } finally {
    restored = firstFailure(vcpu.setRegs(registers, before, outcomes), outcomes)
  }
  return restored < 0 ? restored : found
}

function enterStub(vcpu: VcpuFd, run: (vcpu: VcpuFd) => number): GuestCallOutcome {
  const outcome = run(vcpu)
  const returned = outcome === 0 && isDoorbell(vcpu)
  const after = new BigUint64Array(registers.length)
  const outcomes = new Int32Array(registers.length)
  const read = firstFailure(vcpu.getRegs(registers, after, outcomes), outcomes)
  // KVM completes the store, by stepping over it, only at the next run.
  const completed = returned ? completeStore(vcpu) : 0
  if (read < 0) return read
  return completed < 0 ? completed : { outcome, returned, x: [...after.subarray(0, 4)] }
}

/** Returns 0 if every register of a batch succeeded, else the first `-errno`. */
function firstFailure(failures: number, outcomes: Int32Array): number {
  return failures < 0 ? failures : (outcomes.find((outcome) => outcome < 0) ?? 0)
}

function isDoorbell(vcpu: VcpuFd): boolean {
  const page = new DataView(vcpu.runPage)
  return (
    page.getUint32(kvmRun.exit_reason, true) === exitReasons.KVM_EXIT_MMIO &&
    page.getBigUint64(kvmRun.mmio.phys_addr, true) === DOORBELL
  )
}

/** Returns 0 or `-errno`. */
function completeStore(vcpu: VcpuFd): number {
  const outcome = withImmediateExit(vcpu.runPage, () => vcpu.runSync(0))
  return outcome === -errnos.EINTR ? 0 : outcome
}
