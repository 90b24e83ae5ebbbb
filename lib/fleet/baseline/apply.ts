import { errnoOf } from '../../kvm/errors.js'
import { type Kvm, KvmError, type Vcpu, type Vm } from '../../kvm/index.js'
import { checkKvm } from '../../kvm/kvm.js'
import { decodeRegister, encodeRegister, fieldMask, registerFields, allBits } from '../../registers/index.js'
import type { VmmRules } from '../../migration/vmm/rules.js'
import type { CommonBaseline } from './baseline.js'

/** The outcome for a register of the baseline on a VM. */
export interface AppliedRegister {
  id: bigint
  name: string
  /** The value the baseline requires, and the bits it fixes. */
  value: bigint
  mask: bigint
  /** The current value; null if the VM has no such register. */
  reads: bigint | null
  /** Bits that the baseline fixes and that have another value. */
  refused: bigint
  /** Fields these bits are in; bit numbers if they have no name. */
  fields: string[]
  /** The errno of `KVM_SET_ONE_REG`, if it refused the value. */
  errno?: string
  /** Whether the baseline declares that this host may lack the register. */
  declared: boolean
}

export interface Applied {
  /** Every register of the baseline, in the order written. */
  registers: AppliedRegister[]
  /** The registers that differ from the baseline without being declared in it. */
  refused: AppliedRegister[]
}

const PSCI_VERSION = encodeRegister('KVM_REG_ARM_PSCI_VERSION')
const SVE_VLS = encodeRegister('KVM_REG_ARM64_SVE_VLS')

/**
 * Makes a VM with vCPUs, configures it by a baseline and reads it back. The caller closes the VM.
 * @throws KvmError if the VM cannot be made: KVM refuses its address space, a capability or the vCPUs' features
 */
export function apply(
  kvm: Kvm,
  baseline: CommonBaseline,
  { vcpus: count = 1 }: { vcpus?: number } = {},
): Applied & { vm: Vm } {
  checkKvm(kvm)
  const vm = kvm.createVm({ ipaSize: baseline.ipaSize })
  try {
    for (const capability of baseline.capabilities) vm.enableCapability(capability)
    const vcpus = Array.from({ length: count }, (_, id) => vm.createVcpu(id, { init: false }))
    for (const vcpu of vcpus) vcpu.init({ features: baseline.features })
    // Finalize fixes the vector lengths, and ID registers show them: so all vCPUs come first.
    const lengths = vcpus.flatMap((vcpu) => finalize(vcpu, baseline))
    return { vm, ...applied([...lengths, ...vcpus.flatMap((vcpu) => configure(vcpu, baseline))]) }
  } catch (error) {
    vm.close()
    throw error
  }
}

/**
 * Configures the vCPUs that a VM has by a baseline, before the first run, and reads them back. The VM keeps its address space,
 * capabilities and vector lengths, and its vCPUs their features: create them as the baseline says.
 * @throws KvmError as `Registers.get`, with EBUSY or EINVAL, for a vCPU that is not initialized or finalized
 *
 * @example
 * const { refused } = configureByBaseline(vm, readBaseline('fleet.json'))
 * if (refused.length > 0) throw new Error(`this host refuses ${refused.map(({ name }) => name).join(', ')}`)
 */
export function configureByBaseline(vm: Vm, baseline: CommonBaseline): Applied {
  return applied(vm.vcpus.flatMap((vcpu) => configure(vcpu, baseline)))
}

function applied(registers: AppliedRegister[]): Applied {
  return { registers, refused: registers.filter(({ refused, declared }) => refused !== 0n && !declared) }
}

function finalize(vcpu: Vcpu, { features, vectorLengths }: CommonBaseline): AppliedRegister[] {
  if (!features.includes('sve')) return []
  const wanted = vectorLengths === null ? null : BigInt(vectorLengths)
  const found =
    wanted === null
      ? []
      : [write(vcpu, { id: SVE_VLS, value: wanted, mask: allBits(SVE_VLS), declared: false })]
  vcpu.finalize()
  return found
}

/** ID registers first: states of mitigations depend on them. */
function configure(vcpu: Vcpu, baseline: CommonBaseline): AppliedRegister[] {
  const absent = absentSomewhere(baseline)
  const wanted: Wanted[] = [
    ...baseline.idRegisters.map(({ id, value, mask }) => ({
      id: BigInt(id),
      value: BigInt(value),
      mask: BigInt(mask),
    })),
    ...(baseline.psciVersion === null
      ? []
      : [{ id: PSCI_VERSION, value: BigInt(baseline.psciVersion), mask: allBits(PSCI_VERSION) }]),
    ...baseline.bitmaps.map(({ id, value }) => ({
      id: BigInt(id),
      value: BigInt(value),
      mask: allBits(BigInt(id)),
    })),
    ...baseline.registers.map(({ id, value, mask }) => ({
      id: BigInt(id),
      value: BigInt(value),
      mask: BigInt(mask),
    })),
  ].map((entry) => Object.assign(entry, { declared: absent.has(entry.id) }))
  for (const entry of wanted) write(vcpu, entry)
  // Read at the end: a write may change other registers too.
  return wanted.map((entry) => write(vcpu, entry))
}

/** Returns what was refused, each register with its fields, once. */
export function refusedNames({ refused }: Pick<Applied, 'refused'>): string[] {
  return [...new Set(refused.map(({ name, fields }) => [name, ...fields].join(' ')))]
}

/** The registers that some host of a baseline lacks. */
function absentSomewhere({ unreconciled }: CommonBaseline): Set<bigint> {
  return new Set(unreconciled.filter(({ kind }) => kind === 'absent').map(({ id }) => BigInt(id)))
}

/**
 * Returns the rules of a VMM that knows the baseline of its VMs: it does not carry a register that the baseline declares to be absent
 * on some host.
 */
export function withBaseline(rules: VmmRules, baseline: CommonBaseline): VmmRules {
  const absent = absentSomewhere(baseline)
  return { ...rules, carries: (id) => rules.carries(id) && !absent.has(id) }
}

interface Wanted {
  id: bigint
  value: bigint
  mask: bigint
  declared: boolean
}

function write(vcpu: Vcpu, wanted: Wanted): AppliedRegister {
  const { id, value, mask } = wanted
  const before = read(vcpu, id)
  if (before === null) return outcome(wanted, null)
  const target = (before & ~mask) | (value & mask)
  if (target === before) return outcome(wanted, before)
  const set = (to: bigint) => errnoOf(() => vcpu.registers.set(id, to))
  const errno = set(target)
  if (errno === undefined) return outcome(wanted, read(vcpu, id))
  // The value as a whole is refused: nibble by nibble, find which part of it is accepted.
  let reached = before
  for (let shift = 0n; target >> shift !== 0n || reached >> shift !== 0n; shift += 4n) {
    const next = (reached & ~(0xfn << shift)) | (target & (0xfn << shift))
    if (next !== reached && set(next) === undefined) reached = next
  }
  return { ...outcome(wanted, read(vcpu, id)), errno }
}

function outcome({ id, value, mask, declared }: Wanted, reads: bigint | null): AppliedRegister {
  const refused = reads === null ? mask : (reads ^ value) & mask
  const { name } = decodeRegister(id)
  return {
    id,
    name,
    value,
    mask,
    reads,
    refused,
    fields: reads === null ? [] : fieldsIn(id, refused),
    declared: declared && reads === null,
  }
}

function fieldsIn(id: bigint, bits: bigint): string[] {
  let rest = bits
  const names: string[] = []
  for (const field of registerFields(id)) {
    const mask = fieldMask(field)
    if ((bits & mask) !== 0n) names.push(field.name)
    rest &= ~mask
  }
  for (let bit = 0; rest >> BigInt(bit) !== 0n; bit++) {
    if ((rest >> BigInt(bit)) & 1n) names.push(`bit ${bit}`)
  }
  return names
}

function read(vcpu: Vcpu, id: bigint): bigint | null {
  try {
    return vcpu.registers.get(id)
  } catch (error) {
    if (error instanceof KvmError && error.code === 'ENOENT') return null
    throw error
  }
}
