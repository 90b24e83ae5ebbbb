/** Reports made of fingerprints: values of one host, behaviour of others that run the same kernel. */
import {
  cleansByItself,
  decodeRegister,
  encodeRegister,
  fieldValue,
  hasAArch32,
  hex,
  isAArch32IdRegister,
  isFeatureIdRegister,
  needsNoCleaning,
  registerField,
  type RegisterName,
  registerName,
  registerWidth,
} from '../registers/index.js'
import { bitmapsOf, psciVersionsOf, registerValue } from '../report/registers.js'
import type { Report, ReportedRegister } from '../report/report.js'
import { nibblePlaces, nibblesRule, sixteen, within, type WriteRule } from '../report/write-rule.js'
import { type Capability, vcpuFeatures, type VcpuFeature } from '../uapi.js'
import { compareLists, type Fingerprint, leftOut } from './fingerprint.js'
import { inferRule, partOf, type Witness } from './inferred-rule.js'
import { independentFeatures, type Vouched, withFeatures } from './vouched-features.js'

/** Thrown if a fingerprint cannot come from a host that behaves like the given one. */
export class UnlikeHostError extends Error {
  override readonly name = 'UnlikeHostError'
  readonly code = 'ERR_KVM_UNLIKE_HOST'
}

const version = encodeRegister('KVM_REG_ARM_PSCI_VERSION')

export interface LikeOptions {
  /** Reports of hosts that run the same kernel as `like`: their rules too are evidence. Default: none. */
  sameKernel?: readonly Report[]
  /** vCPU features that somebody knows the host to have. Their registers are those of `like`. Default: none. */
  vouched?: Vouched
}

/**
 * Combines the values of a fingerprint with the behaviour of another host, whose kernel must be alike: same firmware registers and
 * PSCI. The resulting report makes it possible to compare and simulate a host of which only a fingerprint exists.
 *
 * What an ID register accepts is inferred (`inferRule`) from `like` and `sameKernel`; what they do not decide is marked `untried`.
 * Traits are those of `like`. Only vCPUs without optional features are known, and those `vouched` for: the capabilities omit those
 * that the hardware decides, and all other vCPU features, and devices, are unknown.
 *
 * @throws UnlikeHostError if the kernels cannot be alike
 * @throws VouchError for features that `like` lacks, and for SVE vectors of unknown length
 */
export function reportFromFingerprint(
  fingerprint: Fingerprint,
  like: Report,
  { sameKernel = [], vouched = { features: [] } }: LikeOptions = {},
): Report {
  const reason = reasonUnlike(fingerprint, like)
  if (reason !== undefined) throw new UnlikeHostError(reason)
  const values = new Map(fingerprint.registers.map(({ id, value }) => [id, value]))
  const infer = new Inference(values, [like, ...sameKernel])
  const likeById = new Map(like.registers.map((register) => [BigInt(register.id), register]))
  const registers = like.registers.flatMap((register): ReportedRegister[] => {
    const id = BigInt(register.id)
    const value = values.get(id)
    if (value !== undefined) return [infer.row(register, value)]
    const companion = leftOut.get(id)
    return companion !== undefined && values.has(companion) ? [register] : []
  })
  for (const [id, value] of values) {
    if (likeById.has(id)) continue
    const row = { id: hex(id), name: registerName(id), value: hex(value), untried: everyNibble(id) }
    registers.push(isFeatureIdRegister(id) ? { ...row, write: { rule: 'fixed', errno: 'EINVAL' } } : row)
  }
  for (const [id, companion] of leftOut) {
    if (!likeById.has(id) && values.has(companion)) {
      registers.push({ id: hex(id), name: registerName(id), value: null })
    }
  }
  const { devices: _unknown, ...traits } = traitsOf(values, [like, ...sameKernel])
  const targets = targetsOf(values, like)
  const { otherCapabilities: _answers, vmTypes: _types, guestReads: _reads, cpus: _cpus, ...known } = like
  const imported: Report = {
    ...known,
    host: {
      release: fingerprint.kernelVersion,
      build: `values of a fingerprint by Firecracker ${fingerprint.firecrackerVersion}, behaviour of ${like.host.release}`,
    },
    origin: { kind: 'fingerprint', like: like.host.release },
    capabilities: capabilitiesOf(values, like),
    preferredTarget: targets.preferred,
    registers,
    configurations: [],
    traits: {
      ...traits,
      init: {
        ...traits.init,
        targets: targets.accepted,
        supported: traits.init.supported.filter((name) => ofEveryVcpu.has(name)),
        unknown: (Object.keys(vcpuFeatures) as VcpuFeature[]).filter(
          (name) => vcpuFeatures[name] < traits.init.knownFeatures && !ofEveryVcpu.has(name),
        ),
      },
    },
  }
  return withFeatures(imported, like, {
    ...vouched,
    features: [...new Set([...independentFeatures(like), ...vouched.features])],
  })
}

/** Features that every host supports. */
const ofEveryVcpu: ReadonlySet<VcpuFeature> = new Set<VcpuFeature>(['power-off', 'psci-0.2'])

function everyNibble(id: bigint): string[] {
  return nibblePlaces.slice(0, registerWidth(id) / 4)
}

type Values = ReadonlyMap<bigint, bigint>

const MIDR_EL1 = encodeRegister('MIDR_EL1')
const ID_AA64PFR0_EL1 = encodeRegister('ID_AA64PFR0_EL1')
const CTR_EL0 = encodeRegister('CTR_EL0')
const CLIDR_EL1 = encodeRegister('CLIDR_EL1')
/** CTR_EL0.DminLine and IminLine. */
const LINES = 0xf_000fn

const GIC = registerField(ID_AA64PFR0_EL1, 'GIC')

/** The fields EL1 and EL0: whether AArch32 code can run there. */
function aarch32Levels(pfr0: bigint | undefined): bigint {
  return (pfr0 ?? 0n) & 0xffn
}

function hasGicv3(pfr0: bigint | undefined): boolean {
  return fieldValue(GIC, pfr0 ?? 0n) > 0n
}

/** The traits of the first host, without what concerns registers or an interrupt controller that the fingerprint's host lacks. */
function traitsOf(values: Values, hosts: readonly Report[]): Report['traits'] {
  const {
    narrowedRegisters: _byItsLevels,
    hiddenRegisters,
    changedByFirstRun: _withItsGic,
    changedByVgic: _too,
    ...traits
  } = hosts[0]!.traits
  const aarch32 = hasAArch32(values.get(ID_AA64PFR0_EL1)!)
  const isListed = ({ id }: { id: string }) => values.has(BigInt(id)) || leftOut.has(BigInt(id))
  const hidden = hiddenRegisters?.flatMap(({ hides, ...by }) => {
    const listed = hides.filter(isListed)
    return listed.length > 0 && isListed(by) ? [{ ...by, hides: listed }] : []
  })
  const narrowed = narrowedRegisters(values, hosts)
  const ofGic = gicTraits(values, hosts)
  const changes = (bits: Report['traits']['changedByVgic']) =>
    bits?.filter(({ id }) => values.has(BigInt(id)) && (aarch32 || !isAArch32IdRegister(BigInt(id))))
  const [changedByFirstRun, changedByVgic] = [ofGic.changedByFirstRun, ofGic.changedByVgic].map(changes)
  const kept = traits.init.kept?.filter((id) => isListed({ id }))
  return {
    ...traits,
    init: { ...traits.init, ...(kept && { kept }) },
    ...(changedByFirstRun && { changedByFirstRun }),
    ...(changedByVgic && { changedByVgic }),
    ...(narrowed && { narrowedRegisters: narrowed }),
    ...(hidden && hidden.length > 0 && { hiddenRegisters: hidden }),
    lossyRegisters: traits.lossyRegisters.filter(isListed),
    runWithoutVgicInit: ofGic.runWithoutVgicInit,
  }
}

type GicTraits = Pick<Report['traits'], 'changedByFirstRun' | 'changedByVgic' | 'runWithoutVgicInit'>

/** What follows from the interrupt controller: as on the first host that has the same. */
function gicTraits(values: Values, hosts: readonly Report[]): GicTraits {
  const same = gicWitness(values, hosts)
  if (same !== undefined) return same.traits
  const { changedByFirstRun, changedByVgic } = hosts[0]!.traits
  return {
    ...(changedByFirstRun && { changedByFirstRun: [] }),
    ...(changedByVgic && { changedByVgic: [] }),
    runWithoutVgicInit: null,
  }
}

/**
 * The first host that has a GICv3 if the fingerprint's host has one, and none if it has none; preferably one that shows as much AArch32.
 * undefined if there is none.
 */
function gicWitness(values: Values, hosts: readonly Report[]): Report | undefined {
  const mine = values.get(ID_AA64PFR0_EL1)!
  const same = hosts.filter((host) => hasGicv3(registerValue(host, ID_AA64PFR0_EL1)) === hasGicv3(mine))
  const alike = same.find(
    (host) => hasAArch32(registerValue(host, ID_AA64PFR0_EL1) ?? 0n) === hasAArch32(mine),
  )
  return alike ?? same[0]
}

/**
 * Which core registers writes truncate: as on the first host whose AArch32 reaches the same exception levels. `visible` is only seen
 * where it reaches EL1.
 */
function narrowedRegisters(values: Values, hosts: readonly Report[]): Report['traits']['narrowedRegisters'] {
  const mine = aarch32Levels(values.get(ID_AA64PFR0_EL1))
  const same = hosts.find((host) => aarch32Levels(registerValue(host, ID_AA64PFR0_EL1)) === mine)
  if (same !== undefined) return same.traits.narrowedRegisters
  const { narrowedRegisters: ofLike } = hosts[0]!.traits
  return ofLike === 'visible' || !hasAArch32(mine) ? undefined : ofLike
}

/** Derives the rows of a host's registers from their values and from hosts of the same kernel. */
class Inference {
  readonly #values: Values
  readonly #midr: bigint
  readonly #aarch32: boolean
  readonly #hasMasks: boolean
  readonly #hasBitmaps: boolean
  /** Whether the shortest cache lines are those of the host whose rows are taken: KVM accepts no shorter ones in CCSIDR_EL1. */
  readonly #hasLinesOfLike: boolean
  /** Whether a host shows what becomes of the fields about the interrupt controller. */
  readonly #hasGicWitness: boolean
  readonly #witnesses = new Map<bigint, (Witness & { ssbs: boolean })[]>()

  constructor(values: Values, hosts: readonly Report[]) {
    this.#values = values
    this.#midr = values.get(MIDR_EL1)!
    this.#aarch32 = hasAArch32(values.get(ID_AA64PFR0_EL1)!)
    this.#hasMasks = hosts.some(({ registers }) => registers.some(({ mask }) => mask !== undefined))
    const like = registerValue(hosts[0]!, CTR_EL0) ?? 0n
    this.#hasLinesOfLike = ((like ^ (values.get(CTR_EL0) ?? 0n)) & LINES) === 0n
    this.#hasBitmaps = hosts.some((host) => bitmapsOf(host).length > 0)
    this.#hasGicWitness = gicWitness(values, hosts) !== undefined
    for (const host of hosts) {
      const midr = registerValue(host, MIDR_EL1) ?? 0n
      const aarch32 = hasAArch32(registerValue(host, ID_AA64PFR0_EL1) ?? 0n)
      const ssbs = fieldValue(SSBS, registerValue(host, ID_AA64PFR1_EL1) ?? 0n) > 0n
      for (const row of host.registers) {
        const id = BigInt(row.id)
        // KVM treats AArch32 ID registers alike on all hosts that have AArch32, and on all that have not.
        if (isAArch32IdRegister(id) && aarch32 !== this.#aarch32) continue
        const known = this.#witnesses.get(id)
        if (known === undefined) this.#witnesses.set(id, [{ row, midr, ssbs }])
        else known.push({ row, midr, ssbs })
      }
    }
  }

  row(like: ReportedRegister, value: bigint): ReportedRegister {
    const id = BigInt(like.id)
    const { mask: _of, write, ...plain } = { ...like, value: hex(value) }
    const ordinary = { ...like, value: hex(value) }
    if (decodeRegister(id).space === 'demux' && !this.#hasLinesOfLike) {
      return { ...ordinary, untried: everyNibble(id) }
    }
    if (!isFeatureIdRegister(id)) {
      return write?.rule === 'checked' ? { ...ordinary, ...this.#mitigation(like, value) } : ordinary
    }
    const witnesses = this.#witnesses.get(id) ?? []
    if (isAArch32IdRegister(id) && !this.#aarch32) return this.#withoutAArch32(plain, like, id)
    if (id === CLIDR_EL1)
      return write?.rule === 'nibbles' ? { ...ordinary, write: this.#caches(like, value) } : ordinary
    const mask = witnesses.find(({ row }) => row.mask !== undefined)?.row.mask
    const { write: inferred, untried: open } = inferRule(id, value, this.#midr, witnesses, this.#hasMasks)
    // KVM has rules of its own for some, which only a host that has the registers shows.
    const untried = witnesses.length === 0 && this.#hasMasks ? everyNibble(id) : this.#withGic(id, open)
    return {
      ...plain,
      ...(mask !== undefined && { mask }),
      write: inferred,
      ...(untried.length > 0 && { untried }),
    }
  }

  /** The first run, or the creation of a GICv3, may change these fields, which only a host with such a controller shows. */
  #withGic(id: bigint, untried: readonly string[]): string[] {
    const place = gicPlaces.get(id)
    if (this.#hasGicWitness || place === undefined) return [...untried]
    return nibblePlaces.filter((nibble) => nibble === place || untried.includes(nibble))
  }

  /**
   * On a host without AArch32 KVM ignores writes to its ID registers, which read 0 (`aa32_id_visibility`, Linux 6.1); on older kernels
   * they are fixed. Those that KVM hides from every guest stay fixed.
   */
  #withoutAArch32(plain: ReportedRegister, like: ReportedRegister, id: bigint): ReportedRegister {
    const [witness] = this.#witnesses.get(id) ?? []
    if (witness !== undefined) return { ...plain, ...(witness.row.write && { write: witness.row.write }) }
    const isHidden = hiddenAArch32.has(id) || (this.#hasMasks && like.mask === undefined)
    const isIgnored = this.#hasBitmaps && !isHidden
    return { ...plain, write: isIgnored ? { rule: 'bits', bits: '0x0' } : { rule: 'fixed', errno: 'EINVAL' } }
  }

  /** CLIDR_EL1: any bit of the mask may be set, but not to say that no cache needs cleaning unless CTR_EL0.IDC says so too. */
  #caches({ mask = '0x0' }: ReportedRegister, value: bigint): WriteRule {
    const free = BigInt(mask)
    const mayNeedNone = cleansByItself(this.#values.get(CTR_EL0) ?? 0n)
    const sets = within(value, free).map((set, nibble) =>
      sixteen.reduce((kept, digit) => {
        const shift = BigInt(4 * nibble)
        const written = (value & ~(0xfn << shift)) | (BigInt(digit) << shift)
        return mayNeedNone || !needsNoCleaning(written) ? kept : kept & ~(1 << digit)
      }, set),
    )
    return nibblesRule(sets, value)
  }

  /**
   * The state of a mitigation accepts its own level and those below. Whether clearing ID_AA64PFR1_EL1.SSBS changes it, only a host
   * that has the field can show.
   */
  #mitigation({ name }: ReportedRegister, level: bigint): Pick<ReportedRegister, 'write' | 'untried'> {
    const write = { rule: 'checked' as const, accepts: acceptedLevels(name, level) }
    if (encodeRegister(name) !== WORKAROUND_2 || level === 3n || !hasSsbs(this.#values)) return { write }
    const seen = (this.#witnesses.get(WORKAROUND_2) ?? []).filter(({ ssbs }) => ssbs)
    if (seen.length === 0) return this.#hasMasks ? { write, untried: ['3:0', '7:4'] } : { write }
    const [withoutSsbs] = seen.flatMap(({ row }) =>
      row.write?.rule === 'checked' && row.write.withoutSsbs ? [row.write.withoutSsbs] : [],
    )
    return { write: withoutSsbs === undefined ? write : { ...write, withoutSsbs } }
  }
}

/** The nibble of a feature ID register that describes the interrupt controller. */
const gicPlaces: ReadonlyMap<bigint, string> = new Map([
  [ID_AA64PFR0_EL1, '27:24'],
  [encodeRegister('ID_PFR1_EL1'), '31:28'],
])

const WORKAROUND_2 = encodeRegister('KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2')
const ID_AA64PFR1_EL1 = encodeRegister('ID_AA64PFR1_EL1')
const SSBS = registerField(ID_AA64PFR1_EL1, 'SSBS')

function hasSsbs(values: Values): boolean {
  return fieldValue(SSBS, values.get(ID_AA64PFR1_EL1) ?? 0n) > 0n
}

function acceptedLevels(name: string, level: bigint): string[] {
  if (name.endsWith('WORKAROUND_2'))
    return level === 3n ? ['0x0', '0x1', '0x2', '0x3', '0x12'] : ['0x0', '0x1']
  return Array.from({ length: Number(level) + 1 }, (_, accepted) => hex(BigInt(accepted)))
}

function isFirmware(id: bigint): boolean {
  return ['firmware', 'bitmap'].includes(decodeRegister(id).space)
}

/** Returns why a fingerprint cannot come from a host that behaves like this one; undefined if it can. */
export function reasonUnlike(fingerprint: Fingerprint, like: Report): string | undefined {
  const { missing, added } = compareLists(fingerprint, like)
  const unlike = [...missing, ...added].find(isFirmware)
  if (unlike !== undefined) {
    const host = `the host ${like.host.release}`
    const dump = `the fingerprint of ${fingerprint.kernelVersion}`
    const [has, lacks] = missing.includes(unlike) ? [host, dump] : [dump, host]
    return `${has} has ${registerName(unlike)}, which ${lacks} lacks: take a host whose kernel has the same firmware registers`
  }
  const psci = fingerprint.registers.find(({ id }) => id === version)!.value
  return psciVersionsOf(like).includes(psci)
    ? undefined
    : `the fingerprint has PSCI_VERSION ${hex(psci)}, which the host ${like.host.release} does not accept`
}

/** AArch32 ID registers that KVM shows as 0 on every host: reserved, or without use for a guest. */
const hiddenAArch32: ReadonlySet<bigint> = new Set(
  ['ID_AFR0_EL1', 'ID_DFR1_EL1', 'S3_0_C0_C3_3', 'S3_0_C0_C3_7'].map(encodeRegister),
)

/** Capabilities that the CPU or other hardware decides, and no register value does. */
const ofHardware: ReadonlySet<Capability> = new Set([
  'KVM_CAP_ARM_EL1_32BIT',
  'KVM_CAP_ARM_PMU_V3',
  'KVM_CAP_ARM_PMU_V3_STRICT',
  'KVM_CAP_ARM_SVE',
  'KVM_CAP_ARM_PTRAUTH_ADDRESS',
  'KVM_CAP_ARM_PTRAUTH_GENERIC',
  'KVM_CAP_ARM_EL2',
  'KVM_CAP_ARM_EL2_E2H0',
  'KVM_CAP_ARM_MTE',
  'KVM_CAP_ARM_CACHEABLE_PFNMAP_SUPPORTED',
  'KVM_CAP_NR_VCPUS',
])

/** Capabilities that the interrupt controller decides (`arch/arm64/kvm/arm.c:kvm_arm_default_max_vcpus`). */
const ofGic: ReadonlySet<Capability> = new Set(['KVM_CAP_MAX_VCPUS', 'KVM_CAP_MAX_VCPU_ID'])

/** The capabilities of `like`, with those that registers decide, and without those that other hardware decides. */
function capabilitiesOf(values: Values, like: Report): Report['capabilities'] {
  const hasOtherGic = hasGicv3(values.get(ID_AA64PFR0_EL1)) !== hasGicv3(registerValue(like, ID_AA64PFR0_EL1))
  const derived = new Map(
    registerCapabilities.map(({ capability, register, field, answer }) => {
      const id = encodeRegister(register)
      const value = values.get(id)
      return [
        capability,
        value === undefined ? undefined : answer(fieldValue(registerField(id, field), value)),
      ]
    }),
  )
  return Object.fromEntries(
    Object.entries(like.capabilities).flatMap(([name, answers]) => {
      const capability = name as Capability
      if (ofHardware.has(capability) || (hasOtherGic && ofGic.has(capability))) return []
      if (!derived.has(capability)) return [[name, answers]]
      const answer = derived.get(capability)
      return answer === undefined ? [] : [[name, [answer, answer]]]
    }),
  )
}

/** Bits of physical addresses by ID_AA64MMFR0_EL1.PARANGE. More than 48 need larger pages or LPA2, so they are not known. */
const physicalBits: readonly (number | undefined)[] = [32, 36, 40, 42, 44, 48]

/** Capabilities that a field of an ID register decides (`arch/arm64/kvm/arm.c:kvm_vm_ioctl_check_extension`, `kvm/reset.c`). */
const registerCapabilities: readonly {
  capability: Capability
  register: RegisterName
  field: string
  answer: (content: bigint) => number | undefined
}[] = [
  {
    capability: 'KVM_CAP_ARM_INJECT_SERROR_ESR',
    register: 'ID_AA64PFR0_EL1',
    field: 'RAS',
    answer: (ras) => (ras > 0n ? 1 : 0),
  },
  {
    capability: 'KVM_CAP_GUEST_DEBUG_HW_BPS',
    register: 'ID_AA64DFR0_EL1',
    field: 'BRPs',
    answer: (last) => Number(last) + 1,
  },
  {
    capability: 'KVM_CAP_GUEST_DEBUG_HW_WPS',
    register: 'ID_AA64DFR0_EL1',
    field: 'WRPs',
    answer: (last) => Number(last) + 1,
  },
  {
    capability: 'KVM_CAP_ARM_VM_IPA_SIZE',
    register: 'ID_AA64MMFR0_EL1',
    field: 'PARANGE',
    answer: (range) => physicalBits[Number(range)],
  },
]

const GENERIC_TARGET = 5

/** `KVM_ARM_TARGET_*` of CPUs that have one of their own (`arch/arm64/kvm/guest.c:kvm_target_cpu`), by MIDR_EL1 without its revision. */
const cpuTargets: ReadonlyMap<string, number> = new Map([
  ['41:d0f', 0],
  ['41:d00', 1],
  ['41:d07', 2],
  ['50:0', 3],
  ['41:d03', 4],
])

/**
 * Returns the targets of a host. Kernels up to 6.5 accept only the CPU's own and prefer it; later ones prefer the generic one, and
 * accept it on every CPU.
 */
function targetsOf(values: Values, like: Report): { preferred: number; accepted: number[] } {
  const own = (midr: bigint) => cpuTargets.get(partOf(midr)) ?? GENERIC_TARGET
  const ofLike = own(registerValue(like, MIDR_EL1) ?? 0n)
  const mine = own(values.get(MIDR_EL1)!)
  // Where the CPU has no target of its own, the features of the whole VM, as new as this, tell the kernels apart.
  const isGeneric =
    ofLike === GENERIC_TARGET ? like.traits.init.scope === 'vm' : like.preferredTarget === GENERIC_TARGET
  return isGeneric
    ? { preferred: GENERIC_TARGET, accepted: [...new Set([mine, GENERIC_TARGET])] }
    : { preferred: mine, accepted: [mine] }
}
