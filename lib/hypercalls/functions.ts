/** The hypercalls KVM knows, and those of the architecture: ids, names and who defined them. */
import { hex, nearestNames } from '../registers/index.js'
import { psci01Functions, psciFunctions } from './psci.js'

export interface HypercallFunction {
  id: number
  /** As in the document that defines it; SMC64 twins of SMC32 functions end in `_64`. */
  name: string
  /** What it does or returns. */
  description: string
}

/** Ids that this folder, or a hypercall handler, refers to individually. */
export const functionIds = {
  SMCCC_VERSION: 0x8000_0000,
  SMCCC_ARCH_FEATURES: 0x8000_0001,
  SMCCC_ARCH_SOC_ID: 0x8000_0002,
  SMCCC_ARCH_SOC_ID_64: 0xc000_0002,
  SMCCC_ARCH_WORKAROUND_1: 0x8000_8000,
  SMCCC_ARCH_WORKAROUND_2: 0x8000_7fff,
  SMCCC_ARCH_WORKAROUND_3: 0x8000_3fff,
  TRNG_VERSION: 0x8400_0050,
  TRNG_FEATURES: 0x8400_0051,
  TRNG_GET_UUID: 0x8400_0052,
  TRNG_RND32: 0x8400_0053,
  TRNG_RND64: 0xc400_0053,
  PV_TIME_FEATURES: 0xc500_0020,
  PV_TIME_ST: 0xc500_0021,
  VENDOR_HYP_CALL_UID: 0x8600_ff01,
  KVM_FEATURES: 0x8600_0000,
  KVM_PTP: 0x8600_0001,
  KVM_HYP_MEMINFO: 0xc600_0002,
  KVM_MEM_SHARE: 0xc600_0003,
  KVM_MEM_UNSHARE: 0xc600_0004,
  KVM_MMIO_GUARD: 0xc600_0007,
  KVM_DISCOVER_IMPL_VER: 0xc600_0040,
  KVM_DISCOVER_IMPL_CPUS: 0xc600_0041,
} as const

/** Name of a function that is not PSCI's. */
export type FunctionName = keyof typeof functionIds

const descriptions: Readonly<Record<FunctionName, string>> = {
  SMCCC_VERSION: 'version of the calling convention',
  SMCCC_ARCH_FEATURES: 'whether an architecture function, and PV_TIME_FEATURES, is there',
  SMCCC_ARCH_SOC_ID: 'identity of the system on chip; KVM has none',
  SMCCC_ARCH_SOC_ID_64: 'name of the system on chip; KVM has none',
  SMCCC_ARCH_WORKAROUND_1: 'mitigates Spectre variant 2 for the caller',
  SMCCC_ARCH_WORKAROUND_2: 'turns the mitigation of Spectre variant 4 on or off for the caller',
  SMCCC_ARCH_WORKAROUND_3: 'mitigates Spectre-BHB for the caller',
  TRNG_VERSION: 'version of the True Random Number Generator interface (Arm DEN0098)',
  TRNG_FEATURES: 'whether a TRNG function is there',
  TRNG_GET_UUID: 'who implements the TRNG',
  TRNG_RND32: 'up to 96 bits of entropy',
  TRNG_RND64: 'up to 192 bits of entropy',
  PV_TIME_FEATURES: 'whether a paravirtual time function is there (Arm DEN0057)',
  PV_TIME_ST: 'address of the record of stolen time of the calling vCPU',
  VENDOR_HYP_CALL_UID: 'who the hypervisor is',
  KVM_FEATURES: 'which of KVM’s own functions are there, as a bitmap',
  KVM_PTP: 'wall clock and counter of the host, read at one time',
  KVM_HYP_MEMINFO: 'granule of memory sharing of a protected VM',
  KVM_MEM_SHARE: 'shares memory of a protected VM with the host',
  KVM_MEM_UNSHARE: 'takes shared memory of a protected VM back',
  KVM_MMIO_GUARD: 'lets a protected VM name its MMIO',
  KVM_DISCOVER_IMPL_VER: 'how many CPU implementations the VM may meet',
  KVM_DISCOVER_IMPL_CPUS: 'MIDR, REVIDR and AIDR of the CPU implementations the VM may meet',
}

function psciTable(): HypercallFunction[] {
  return [...psciFunctions, ...psci01Functions].flatMap(({ id, id64, name, since, kvm }) => {
    const description = `PSCI, since version ${since}${kvm ? '' : '; KVM answers NOT_SUPPORTED'}`
    const narrow = { id, name, description }
    return id64 === undefined ? [narrow] : [narrow, { id: id64, name: `${name}_64`, description }]
  })
}

/** Every function known here. */
export const hypercallFunctions: readonly HypercallFunction[] = [
  ...(Object.keys(functionIds) as FunctionName[]).map((name) => ({
    id: functionIds[name],
    name,
    description: descriptions[name],
  })),
  ...psciTable(),
]

const functionsById = new Map(hypercallFunctions.map((entry) => [entry.id, entry]))
const functionsByName = new Map(hypercallFunctions.map((entry) => [entry.name.toLowerCase(), entry]))

/** Returns the function with this id, if it is known. */
export function functionOf(id: number): HypercallFunction | undefined {
  return functionsById.get(id)
}

/** Name of a function, or its id in hexadecimal. */
export function functionName(id: number): string {
  return functionsById.get(id)?.name ?? `0x${id.toString(16).padStart(8, '0')}`
}

/** Returns the function of this name, in any case, with or without the kernel's `ARM_` in front. */
export function functionNamed(name: string): HypercallFunction | undefined {
  return functionsByName.get(name.trim().toLowerCase().replace(/^arm_/, ''))
}

/**
 * Returns the id of a function known here.
 * @throws RangeError for another name
 */
export function functionIdOf(name: string): number {
  const known = functionNamed(name)
  if (known === undefined) throw new RangeError(`unknown function ${name}`)
  return known.id
}

/** Names of functions spelled like `text`, nearest first, at most three. */
export function nearestFunctionNames(text: string): string[] {
  return nearestNames(
    text,
    [...functionsByName.values()].map(({ name }) => name),
  )
}

/** Results in x0 of the functions that are not PSCI's, as signed numbers. */
export const smcccReturns = {
  SUCCESS: 0,
  NOT_SUPPORTED: -1,
  NOT_REQUIRED: -2,
  INVALID_PARAMETER: -3,
} as const

/** Results in x0 of the TRNG's functions, whose -2 and -3 are not those of SMCCC (Arm DEN0098, section 2). */
export const trngReturns = { SUCCESS: 0, NOT_SUPPORTED: -1, INVALID_PARAMETERS: -2, NO_ENTROPY: -3 } as const

/** A signed result as x0 holds it. */
export function resultWord(code: number): bigint {
  return BigInt.asUintN(64, BigInt(code))
}

/** x0 that tells a guest, through any interface, that the function does not exist. */
export const NOT_SUPPORTED = resultWord(smcccReturns.NOT_SUPPORTED)

/** Formats x0 for readers: negative values with a sign, all others in hexadecimal. */
export function resultText(x0: bigint): string {
  const signed = BigInt.asIntN(64, x0)
  return signed < 0n ? `${signed}` : hex(x0)
}

/** VENDOR_HYP_CALL_UID of KVM, 28b46fb6-2ec5-11e9-a9ca-4b564d003a74, as x0 to x3 hold it: the first word has the first bytes. */
export const kvmUid: readonly bigint[] = [0xb66f_b428n, 0xe911_c52en, 0x564b_caa9n, 0x743a_004dn]
