/** Shared parts of the experiments: answers instead of exceptions, VMs with two vCPUs, guests that make calls. */
import type { Conduit, VcpuFd, VmFd } from '../backend.js'
import {
  functionName,
  resultText,
  resultWord,
  type ServiceBitmap,
  serviceBitmaps,
} from '../hypercalls/index.js'
import { errnoOf } from '../kvm/errors.js'
import {
  errnoName,
  type Exit,
  type Kvm,
  KvmError,
  type RegisterReference,
  type Vcpu,
  type Vm,
} from '../kvm/index.js'
import { encodeRegister, hex, registerName } from '../registers/index.js'
import * as rig from '../probe/rig.js'
import { NO_IPA_SIZE } from '../report/machine.js'
import type { VcpuFeature } from '../uapi.js'
import { type Check, notApplicable, violated } from './check.js'

/** `success`, or the errno's name. */
export type Answer = string

export const SUCCESS: Answer = 'success'

/** Returns the answer to an ioctl. */
export function answerOf(action: () => unknown): Answer {
  return errnoOf(action) ?? SUCCESS
}

/** Returns the answer to an ioctl at a null address, of which `EFAULT` may be one. */
export function answerAtNull(action: () => unknown): Answer {
  try {
    return answerOf(action)
  } catch (error) {
    if (error instanceof KvmError) return error.code
    throw error
  }
}

/** Converts the outcome of a bare ioctl: not negative, or `-errno`. */
export function answerOfOutcome(outcome: bigint | number): Answer {
  return typeof outcome === 'number' && outcome < 0 ? errnoName(outcome) : SUCCESS
}

/** Fails the check unless the answer to `what` is the expected one. */
export function expect(what: string, actual: Answer, expected: Answer): void {
  if (actual !== expected) violated(`${what}: ${actual}, not ${expected}`)
}

/** Fails the check unless the value of `what` is the expected one. */
export function expectValue(what: string, actual: bigint, expected: bigint): void {
  if (actual !== expected) violated(`${what}: ${hex(actual)}, not ${hex(expected)}`)
}

/** `KVM_SET_ONE_REG` */
export function write({ registers }: Vcpu, register: RegisterReference, value: bigint): Answer {
  return answerOf(() => registers.set(register, value))
}

/** `KVM_SET_ONE_REG`; fails the check unless the answer is the expected one. */
export function expectWrite(
  vcpu: Vcpu,
  register: RegisterReference,
  value: bigint,
  expected: Answer = SUCCESS,
): void {
  const name = typeof register === 'bigint' ? registerName(register) : register
  expect(`${name} = ${hex(value)}`, write(vcpu, register, value), expected)
}

/** `KVM_GET_ONE_REG`; fails the check unless it returns this value. */
export function expectRead(vcpu: Vcpu, register: RegisterReference, value: bigint, when = ''): void {
  const name = typeof register === 'bigint' ? registerName(register) : register
  expectValue(`${name}${when === '' ? '' : ` ${when}`}`, vcpu.registers.get(register), value)
}

export function isListed({ registers }: Vcpu, register: RegisterReference): boolean {
  const id = typeof register === 'bigint' ? register : encodeRegister(register)
  return registers.list().includes(id)
}

/** A new VM with one vCPU. */
export function onVcpu<T>(
  kvm: Kvm,
  experiment: (vcpu: Vcpu, vm: Vm) => T,
  features: readonly VcpuFeature[] = ['psci-0.2'],
): T {
  using vm = kvm.createVm()
  return experiment(vm.createVcpu(0, { features }), vm)
}

const CODE = 0x8000_0000n
const CODE_SIZE = 0x1_0000

/** A new VM with one vCPU, which is about to execute `program`, of at most 64 KiB, with these registers. */
export function onProgram<T>(
  kvm: Kvm,
  program: Uint32Array,
  registers: Readonly<Record<string, bigint>>,
  experiment: (vcpu: Vcpu, vm: Vm) => T,
): T {
  return onVcpu(kvm, (vcpu, vm) => {
    using memory = kvm.createMemory(CODE_SIZE)
    memory.write(0, new Uint8Array(program.buffer))
    vm.mapMemory(0, { address: CODE, memory })
    for (const [name, value] of Object.entries({ pc: CODE, ...registers })) vcpu.registers.set(name, value)
    return experiment(vcpu, vm)
  })
}

/** Runs the guest until it stores to a device; returns the address. */
export function runToStore(vcpu: Vcpu): bigint {
  const exit = vcpu.runSync({ timeout: PATIENCE })
  if (exit.reason !== 'mmio') violated(`a guest that stores to devices ends with ${exit.reason}`)
  return exit.address
}

/** Interrupts of the GIC that `onGic` makes, private ones included. */
export const GIC_INTERRUPTS = 64

/** A new VM with a vCPU and a GICv3; does not initialise the GIC if `init` is false. */
export function onGic<T>(kvm: Kvm, experiment: (vm: Vm, vcpu: Vcpu) => T, init = true): T {
  return onVcpu(kvm, (vcpu, vm) => {
    const gic = { version: 3, distributor: 0x800_0000n, redistributors: 0x80a_0000n } as const
    const made = answerOf(() => vm.createGic({ ...gic, irqs: GIC_INTERRUPTS, init }))
    if (made === 'ENODEV') notApplicable('this host has no GICv3')
    expect('a GICv3', made, SUCCESS)
    return experiment(vm, vcpu)
  })
}

/** A new VM with two vCPUs. */
export function onTwoVcpus<T>(kvm: Kvm, experiment: (first: Vcpu, second: Vcpu, vm: Vm) => T): T {
  using vm = kvm.createVm()
  return experiment(vm.createVcpu(0), vm.createVcpu(1), vm)
}

/**
 * Returns whether a vCPU may be created once its VM has run. With pKVM KVM refuses its first run, and the kernel then warns in its log
 * (seen on Linux 6.18) and refuses vCPUs of other VMs: a check must not try it there.
 */
export function takesLateVcpus(kvm: Kvm): boolean {
  // pKVM shows itself by ignoring the size of the address space.
  const vm = kvm.fd.createVm(BigInt(NO_IPA_SIZE))
  if (typeof vm === 'number') return true
  vm.close()
  return false
}

/** Returns a VM's bare ioctls. */
export function onBareVm<T>(kvm: Kvm, experiment: (vm: VmFd) => T): T {
  return rig.onVm(kvm.fd, rig.smallestVmType(kvm.fd), experiment)
}

/** Returns a vCPU's bare ioctls, on a new VM; does not initialise it if `features` is null. */
export function onBareVcpu<T>(
  kvm: Kvm,
  features: readonly VcpuFeature[] | null,
  experiment: (vcpu: VcpuFd) => T,
): T {
  return onBareVm(kvm, (vm) =>
    rig.onVcpu(vm, 0, (vcpu) => {
      const outcome = features === null ? 0 : rig.initVcpu(vm, vcpu, features)
      if (outcome < 0) violated(`KVM_ARM_VCPU_INIT: ${errnoName(outcome)}`)
      return experiment(vcpu)
    }),
  )
}

/** Returns the named vCPU features; the check does not apply if this host lacks one of them. */
export function needFeatures(kvm: Kvm, features: readonly VcpuFeature[]): void {
  using vm = kvm.createVm()
  const vcpu = vm.createVcpu(0, { init: false })
  const answer = answerOf(() => vcpu.init({ features: ['psci-0.2', ...features] }))
  if (answer !== SUCCESS) notApplicable(`this host has no vCPU with ${features.join(', ')} (${answer})`)
}

const listsOf = new WeakMap<Kvm, ReadonlySet<bigint>>()

/** Returns this host's register list of a vCPU with `psci-0.2` alone; cached, because many checks need it. */
function listedRegisters(kvm: Kvm): ReadonlySet<bigint> {
  const known = listsOf.get(kvm) ?? new Set(onVcpu(kvm, ({ registers }) => registers.list()))
  listsOf.set(kvm, known)
  return known
}

/** Returns the bitmap registers this host has. */
export function presentBitmaps(kvm: Kvm): ServiceBitmap[] {
  return Object.values(serviceBitmaps).filter(({ register }) => listedRegisters(kvm).has(register))
}

/** Makes checks that do not apply if this host lacks the register. */
export function aboutRegister(name: string, checks: readonly Check[]): Check[] {
  return checks.map(({ experiment, ...check }) =>
    Object.assign(check, {
      experiment: (kvm: Kvm): string => {
        needRegister(kvm, name)
        return experiment(kvm)
      },
    }),
  )
}

/** The check does not apply if this host lacks the register. */
export function needRegister(kvm: Kvm, name: string): void {
  if (!listedRegisters(kvm).has(encodeRegister(name))) notApplicable(`this kernel has no ${name}`)
}

/** Timeout in milliseconds for a call that returns: it takes microseconds, and much more under an emulator. */
const PATIENCE = 20_000
/** Timeout in milliseconds for a call that waits for something that never comes. */
const WAIT = 100
/** How often such a call is repeated before it counts as changing nothing. */
const ATTEMPTS = 50

/** Returns x0 to x3 of a call that must return to the guest. */
export function call(
  vcpu: Vcpu,
  functionId: number | bigint,
  args: readonly bigint[] = [],
  conduit: Conduit = 'hvc',
): readonly [bigint, bigint, bigint, bigint] {
  const { x, exit } = vcpu.hypercall(functionId, args, { conduit, timeout: PATIENCE })
  if (exit !== undefined) violated(`${nameOf(functionId)} ended the run: ${describeExit(exit)}`)
  return x
}

/** Returns x0 of a call. */
export function ask(vcpu: Vcpu, functionId: number | bigint, ...args: bigint[]): bigint {
  return call(vcpu, functionId, args)[0]
}

/** Fails the check unless x0 of a call is this. */
export function expectResult(
  vcpu: Vcpu,
  functionId: number,
  args: readonly bigint[],
  expected: number,
): void {
  const x0 = call(vcpu, functionId, args)[0]
  if (x0 === resultWord(expected)) return
  const about = args.map((argument) => nameOf(argument)).join(', ')
  violated(`${nameOf(functionId)}(${about}): ${resultText(x0)}, not ${expected}`)
}

/** Returns the exit of a call that must not return, and x0 to x3 at the exit. */
export function callEnding(
  vcpu: Vcpu,
  functionId: number,
  args: readonly bigint[] = [],
  conduit: Conduit = 'hvc',
): { exit: Exit; x: readonly bigint[] } {
  const { x, exit } = vcpu.hypercall(functionId, args, { conduit, timeout: PATIENCE })
  if (exit === undefined) violated(`${nameOf(functionId)} came back with ${resultText(x[0])}`)
  return { exit, x }
}

/** Makes a call in which the vCPU must stay until it is interrupted. */
export function expectWait(vcpu: Vcpu, functionId: number): void {
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const { x, exit } = vcpu.hypercall(functionId, [], { timeout: WAIT })
    if (exit === undefined) violated(`${nameOf(functionId)} came back with ${resultText(x[0])}`)
    if (exit.reason !== 'interrupted') {
      violated(`${nameOf(functionId)} ended the run: ${describeExit(exit)}`)
    }
    // On a busy machine the guest may not have reached the call.
    if (x[0] !== BigInt(functionId)) return
  }
  violated(`${nameOf(functionId)} leaves x0 as it was`)
}

export function describeExit(exit: Exit): string {
  return exit.reason === 'system-event' ? `system event ${exit.event}` : exit.reason
}

/** Formats function ids as names, and other numbers in hexadecimal. */
function nameOf(number: number | bigint): string {
  return number >= 0x8000_0000n && number <= 0xffff_ffffn ? functionName(Number(number)) : hex(number)
}

/** Returns the answer to `KVM_RUN` with `immediate_exit`: `success` if it starts the VM. */
export function start(vcpu: Vcpu): Answer {
  return answerOf(() => vcpu.freeze())
}
