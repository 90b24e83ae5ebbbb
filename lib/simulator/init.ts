/** `KVM_ARM_VCPU_INIT` and `KVM_ARM_VCPU_FINALIZE` (`arch/arm64/kvm/arm.c`, `arch/arm64/kvm/reset.c`). */
import { encodeRegister } from '../registers/index.js'
import { errnos, featureWord, KVM_ARM_VCPU_SVE, mpStates } from '../uapi.js'
import { registerFile } from './configuration.js'
import { PC, setGeneralRegister, setGuestRegister } from './guest-registers.js'
import type { VcpuState } from './state.js'
import { dropInputs } from './vcpu-events.js'

const MPIDR_EL1 = encodeRegister('MPIDR_EL1')
const SVE_VLS = encodeRegister('KVM_REG_ARM64_SVE_VLS')

/** Bits of `struct kvm_vcpu_init.features`. */
const WORDS = 7

const POWER_OFF = featureWord(['power-off'])
const EL1_32BIT = featureWord(['el1-32bit'])
const SVE = featureWord(['sve'])
const PTRAUTH = featureWord(['ptrauth-address']) | featureWord(['ptrauth-generic'])

/** Returns 0 or `-errno`. `features` are up to seven words. */
export function initVcpu(vcpu: VcpuState, target: number, features: readonly number[]): number {
  const { traits } = vcpu.vm.host
  const isEphemeral = traits.init.powerOff === 'ephemeral'
  const words = Array.from({ length: WORDS }, (_, index) => features[index] ?? 0)
  if (isEphemeral) words[0] = (words[0]! & ~POWER_OFF) >>> 0
  if (!traits.init.targets.includes(target)) return -errnos.EINVAL
  const outcome = traits.init.scope === 'vm' ? takeVmFeatures(vcpu, words) : takeVcpuFeatures(vcpu, words)
  if (outcome < 0) return outcome
  reset(vcpu)
  const power = isEphemeral ? (features[0] ?? 0) : vcpu.features
  vcpu.mpState = power & POWER_OFF ? mpStates.stopped : mpStates.runnable
  return 0
}

/** The first init of a VM fixes the features of all its vCPUs. */
function takeVmFeatures(vcpu: VcpuState, words: readonly number[]): number {
  const { vm } = vcpu
  const { host } = vm
  const [features = 0, ...others] = words
  if (features >= 2 ** host.traits.init.knownFeatures || others.some((word) => word !== 0)) {
    return -errnos.ENOENT
  }
  if (!isSupported(vcpu, features)) return -errnos.EINVAL
  if (vm.features !== null && vm.features !== features) return -errnos.EINVAL
  const refusal = host.refusal(features, vm.mte)
  if (refusal < 0) return refusal
  vm.features = features
  vcpu.features = features
  return 0
}

/** Every vCPU has features of its own. The bits are checked one by one, and a refusal may leave the bits before it set. */
function takeVcpuFeatures(vcpu: VcpuState, words: readonly number[]): number {
  const { host } = vcpu.vm
  const { knownFeatures, leaksRefusedFeatures } = host.traits.init
  const before = vcpu.features
  for (let bit = 0; bit < 32 * WORDS; bit++) {
    const isSet = ((words[bit >> 5]! >>> (bit & 31)) & 1) === 1
    if (bit >= knownFeatures) {
      if (!isSet) continue
      if (!leaksRefusedFeatures) vcpu.features = before
      return -errnos.ENOENT
    }
    if (vcpu.initialised && ((vcpu.features >>> bit) & 1) !== Number(isSet)) return -errnos.EINVAL
    if (isSet) vcpu.features |= 1 << bit
  }
  const causes: ('ptrauth' | 'register-width')[] = []
  if (!agreesInWidth(vcpu)) causes.push('register-width')
  if (!isPtrauthPossible(vcpu)) causes.push('ptrauth')
  const isPossible = causes.length === 0 && isSupported(vcpu, vcpu.features)
  const refusal = isPossible ? host.refusal(vcpu.features, vcpu.vm.mte) : -errnos.EINVAL
  if (refusal < 0) {
    const leaks = host.traits.init.leaksSve ?? []
    const wasEnabled = (vcpu.features & host.supportedFeatures & SVE) !== 0 && causes.length > 0
    if (wasEnabled && causes.every((cause) => leaks.includes(cause))) vcpu.leakedSve = true
    vcpu.features = 0
    vcpu.initialised = false
  }
  return refusal
}

function isSupported(vcpu: VcpuState, features: number): boolean {
  return (features & ~vcpu.vm.host.supportedFeatures) === 0 && isPtrauthPossible(vcpu, features)
}

/** Pointer authentication needs both of its features. */
function isPtrauthPossible({ vm, features }: VcpuState, asked = features): boolean {
  const pair = asked & PTRAUTH
  return pair === 0 || pair === (PTRAUTH & vm.host.supportedFeatures)
}

/** Returns whether the register width of EL1 equals that of the VM's other vCPUs. */
function agreesInWidth(vcpu: VcpuState): boolean {
  const { vm } = vcpu
  const is32Bit = (vcpu.features & EL1_32BIT) !== 0
  if (is32Bit && (vm.host.supportedFeatures & EL1_32BIT) === 0) return false
  switch (vm.host.traits.init.registerWidth) {
    case 'vm':
      vm.is32Bit ??= is32Bit
      return vm.is32Bit === is32Bit
    case 'every-vcpu':
      return [...vm.vcpus.values()].every(({ features }) => ((features & EL1_32BIT) !== 0) === is32Bit)
    default:
      return true
  }
}

function reset(vcpu: VcpuState): void {
  const { host, mte } = vcpu.vm
  const file = registerFile(host, vcpu.leakedSve ? vcpu.features | SVE : vcpu.features, mte)
  const values = [...file.reset]
  const affinity = file.slots.get(MPIDR_EL1)
  if (affinity !== undefined) values[affinity]! |= mpidr(vcpu.id)
  if (vcpu.file === file) {
    const kept = (host.traits.init.kept ?? []).map(BigInt)
    // Vector lengths stay final, but their registers are reset.
    for (const id of vcpu.sveFinalised ? [...kept, SVE_VLS] : kept) {
      const slot = file.slots.get(id)
      if (slot !== undefined) values[slot] = vcpu.values[slot]!
    }
  }
  vcpu.file = file
  vcpu.values = values
  if (!vcpu.hasRun || !host.traits.init.keepsSError) dropInputs(vcpu)
  if (vcpu.timersEnabled) resetTimerInterrupts(vcpu)
  cutEventTypes(vcpu)
  vcpu.initialised = true
  // An init before the reset discards what CPU_ON stored; the reset then finds nothing.
  vcpu.pendingReset = null
}

/** `kvm_vgic_reset_mapped_irq` */
function resetTimerInterrupts({ interrupts }: VcpuState): void {
  for (const interrupt of interrupts.filter(({ ofTimer }) => ofTimer)) {
    interrupt.active = false
    interrupt.latched = false
    interrupt.line = false
  }
}

/** Fields of ID registers, and the bits of PMEVTYPER<n>_EL0 that depend on them. */
const eventTypeFields: readonly { id: bigint; shift: bigint; bits: (field: bigint) => bigint }[] = [
  // Exception levels 2 and 3: NSH; NSK and NSU.
  { id: encodeRegister('ID_AA64PFR0_EL1'), shift: 8n, bits: (el2) => (el2 === 0n ? 0n : 1n << 27n) },
  { id: encodeRegister('ID_AA64PFR0_EL1'), shift: 12n, bits: (el3) => (el3 === 0n ? 0n : 3n << 28n) },
  // The version of the PMU: 10 bits of event number in PMUv3, 16 in its extensions that KVM knows.
  { id: encodeRegister('ID_AA64DFR0_EL1'), shift: 8n, bits: eventNumber },
]
const eventTypes = Array.from({ length: 31 }, (_, n) => encodeRegister(`PMEVTYPER${n}_EL0`))

function eventNumber(version: bigint): bigint {
  if (version === 1n) return 0x3ffn
  return version >= 4n && version <= 7n ? 0xffffn : 0n
}

/**
 * Clears the bits that the VM's ID registers no longer provide, as a reset does (`arch/arm64/kvm/pmu-emul.c:kvm_pmu_evtyper_mask`).
 */
function cutEventTypes(vcpu: VcpuState): void {
  const file = vcpu.file!
  if (vcpu.vm.idRegisters.size === 0 || !file.slots.has(eventTypes[0]!)) return
  for (const { id, shift, bits } of eventTypeFields) {
    const slot = file.slots.get(id)
    if (slot === undefined) continue
    const field = (value: bigint): bigint => (value >> shift) & 0xfn
    const gone = bits(field(file.reset[slot]!)) & ~bits(field(file.byId.get(id)!.read(vcpu) as bigint))
    if (gone === 0n) continue
    for (const type of eventTypes) {
      const place = file.slots.get(type)
      if (place !== undefined) vcpu.values[place]! &= ~gone
    }
  }
}

/** Performs the reset that PSCI's CPU_ON left pending, if any. */
export function applyPendingReset(vcpu: VcpuState): void {
  const { pendingReset } = vcpu
  if (pendingReset === null) return
  reset(vcpu)
  setGuestRegister(vcpu, PC, pendingReset.pc)
  setGeneralRegister(vcpu, 0, pendingReset.x0)
}

/** Derives affinity levels 0 to 2 from a vCPU's id: at most 16 on level 0, which is all an SGI of a GICv3 can address. */
function mpidr(id: number): bigint {
  return BigInt((id & 0xf) | (((id >> 4) & 0xff) << 8) | (((id >> 12) & 0xff) << 16))
}

/** Returns 0 or `-errno`. */
export function finalizeVcpu(vcpu: VcpuState, feature: number): number {
  if (feature !== KVM_ARM_VCPU_SVE || !hasSve(vcpu)) return -errnos.EINVAL
  if (vcpu.sveFinalised) return -errnos.EPERM
  vcpu.sveFinalised = true
  return 0
}

/** Returns whether everything is finalized that the features require. */
export function isFinalised(vcpu: VcpuState): boolean {
  return vcpu.sveFinalised || !hasSve(vcpu)
}

function hasSve({ features, leakedSve }: VcpuState): boolean {
  return leakedSve || (features & SVE) !== 0
}
