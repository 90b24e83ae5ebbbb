/**
 * Hypercall services a guest may discover, and the bitmap registers by which userspace elects them
 * (`Documentation/virt/kvm/arm/fw-pseudo-registers.rst`). A bit set shows the service, a bit cleared hides it.
 */
import { encodeRegister, nearestNames } from '../registers/index.js'
import { decodeFunctionId, owners } from './function-id.js'
import { functionIds } from './functions.js'
import { psci01Functions } from './psci.js'

export interface Service {
  /** Kebab case, as `vm.services` names it. */
  name: string
  bit: number
  /** The kernel's name of the bit. */
  kernelName: string
  /** Ids of its functions. */
  functions: readonly number[]
  /**
   * Whether KVM itself answers the functions, and only while the bit is set. False where the bit is mere advertisement in KVM_FEATURES: such a
   * function is refused either way unless userspace forwards it to itself with the SMCCC filter.
   */
  gated: boolean
}

export interface ServiceBitmap {
  /** Id of the register. */
  register: bigint
  name: string
  /** Which of the functions' owners it is about, and how `vm.services` calls it. */
  group: ServiceGroup
  /** Value in a VM nobody has configured, on every kernel that has the register. */
  resetValue: bigint
  /** In order of their bits. */
  services: readonly Service[]
}

export type ServiceGroup = 'std' | 'stdHyp' | 'vendorHyp' | 'vendorHyp2'

const {
  TRNG_VERSION,
  TRNG_FEATURES,
  TRNG_GET_UUID,
  TRNG_RND32,
  TRNG_RND64,
  PV_TIME_FEATURES,
  PV_TIME_ST,
  VENDOR_HYP_CALL_UID,
  KVM_FEATURES,
  KVM_PTP,
  KVM_DISCOVER_IMPL_VER,
  KVM_DISCOVER_IMPL_CPUS,
} = functionIds

function bitmap(
  group: ServiceGroup,
  name: string,
  resetValue: bigint,
  services: Omit<Service, 'bit'>[],
): ServiceBitmap {
  return {
    register: encodeRegister(name),
    name,
    group,
    resetValue,
    services: services.map((service, bit) => ({ ...service, bit })),
  }
}

/** In the order of the registers' ids. */
export const serviceBitmaps: Readonly<Record<ServiceGroup, ServiceBitmap>> = {
  std: bitmap('std', 'KVM_REG_ARM_STD_BMAP', 1n, [
    {
      name: 'trng-v1.0',
      kernelName: 'KVM_REG_ARM_STD_BIT_TRNG_V1_0',
      functions: [TRNG_VERSION, TRNG_FEATURES, TRNG_GET_UUID, TRNG_RND32, TRNG_RND64],
      gated: true,
    },
  ]),
  stdHyp: bitmap('stdHyp', 'KVM_REG_ARM_STD_HYP_BMAP', 1n, [
    {
      name: 'pv-time',
      kernelName: 'KVM_REG_ARM_STD_HYP_BIT_PV_TIME',
      functions: [PV_TIME_FEATURES, PV_TIME_ST],
      gated: true,
    },
  ]),
  vendorHyp: bitmap('vendorHyp', 'KVM_REG_ARM_VENDOR_HYP_BMAP', 3n, [
    {
      name: 'features',
      kernelName: 'KVM_REG_ARM_VENDOR_HYP_BIT_FUNC_FEAT',
      functions: [VENDOR_HYP_CALL_UID, KVM_FEATURES],
      gated: true,
    },
    { name: 'ptp', kernelName: 'KVM_REG_ARM_VENDOR_HYP_BIT_PTP', functions: [KVM_PTP], gated: true },
  ]),
  vendorHyp2: bitmap('vendorHyp2', 'KVM_REG_ARM_VENDOR_HYP_BMAP_2', 0n, [
    {
      name: 'discover-impl-ver',
      kernelName: 'KVM_REG_ARM_VENDOR_HYP_BIT_DISCOVER_IMPL_VER',
      functions: [KVM_DISCOVER_IMPL_VER],
      gated: false,
    },
    {
      name: 'discover-impl-cpus',
      kernelName: 'KVM_REG_ARM_VENDOR_HYP_BIT_DISCOVER_IMPL_CPUS',
      functions: [KVM_DISCOVER_IMPL_CPUS],
      gated: false,
    },
  ]),
}

const bitmapsById = new Map(Object.values(serviceBitmaps).map((entry) => [entry.register, entry]))

/** The bitmap with this register id, if it is one. */
export function serviceBitmapOf(register: bigint): ServiceBitmap | undefined {
  return bitmapsById.get(register)
}

/** All bits that stand for a known service. What a given kernel accepts is a fact of its report, not this. */
export function knownMask(group: ServiceGroup): bigint {
  return serviceBitmaps[group].services.reduce((mask, { bit }) => mask | (1n << BigInt(bit)), 0n)
}

/** Thrown for a service a bitmap has no bit for. */
export class UnknownServiceError extends RangeError {
  override readonly name = 'UnknownServiceError'
  readonly code = 'ERR_KVM_UNKNOWN_SERVICE'
}

/** Services that are shown by `value`, lowest bit first. A bit without a known service is `bit-<n>`. */
export function servicesInBitmap(group: ServiceGroup, value: bigint): string[] {
  const names: string[] = []
  for (let bit = 0; bit < 64; bit++) {
    if (((value >> BigInt(bit)) & 1n) === 1n)
      names.push(serviceBitmaps[group].services[bit]?.name ?? `bit-${bit}`)
  }
  return names
}

/**
 * The value that shows exactly these services; `bit-<n>` stands for a bit without a known service.
 *
 * @throws UnknownServiceError (a RangeError with code `ERR_KVM_UNKNOWN_SERVICE`) for a service that is not this bitmap's
 */
export function bitmapOfServices(group: ServiceGroup, names: Iterable<string>): bigint {
  const { name: register, services } = serviceBitmaps[group]
  let value = 0n
  for (const name of names) {
    const bit =
      services.find((service) => service.name === name)?.bit ??
      /^bit-([0-9]|[1-5][0-9]|6[0-3])$/.exec(name)?.[1]
    if (bit === undefined) {
      const known = services.map((service) => service.name)
      const [nearest] = nearestNames(name, known)
      const hint = nearest === undefined ? `it has ${known.join(', ')}` : `did you mean ${nearest}?`
      throw new UnknownServiceError(`${register} has no service "${name}"; ${hint}`)
    }
    value |= 1n << BigInt(bit)
  }
  return value
}

const SMCCC_PSCI_LAST = 0x1f

/**
 * Whether KVM hands a call to its handler whatever the bitmaps say: SMCCC_VERSION, ARCH_FEATURES, PSCI 0.1's ids, and the first 32 functions of the
 * standard owner. Bits 31, 30 and 23:16 are not looked at for those, so that 0x04000003 passes too and PSCI refuses it
 * (`kvm_smccc_default_allowed`).
 */
export function allowedByDefault(functionId: number): boolean {
  if (functionId === functionIds.SMCCC_VERSION || functionId === functionIds.SMCCC_ARCH_FEATURES) return true
  const { owner, number } = decodeFunctionId(functionId)
  if (owner === owners.STANDARD && number <= SMCCC_PSCI_LAST) return true
  return psci01Functions.some(({ id }) => id === functionId)
}

export interface Gate {
  group: ServiceGroup
  register: bigint
  bit: number
  service: Service
}

const gates = new Map<number, Gate>(
  Object.values(serviceBitmaps).flatMap(({ group, register, services }) =>
    services
      .filter(({ gated }) => gated)
      .flatMap((service) =>
        service.functions.map((id) => [id, { group, register, bit: service.bit, service }] as const),
      ),
  ),
)

/**
 * What decides whether a guest's call of a function reaches KVM's handler: a bit of a bitmap register, nothing (`default`), or never
 * (`denied`). On a kernel without the gate's register the call always reaches the handler.
 *
 * @throws RangeError if `functionId` is not an unsigned 32-bit number
 */
export function gateOf(functionId: number): Gate | 'default' | 'denied' {
  return gates.get(functionId) ?? (allowedByDefault(functionId) ? 'default' : 'denied')
}
