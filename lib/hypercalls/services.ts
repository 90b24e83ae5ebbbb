/**
 * Hypercall services that a guest may discover, and the bitmap registers with which userspace elects them
 * (`Documentation/virt/kvm/arm/fw-pseudo-registers.rst`). A bit set shows the service, a bit cleared hides it.
 */
import { type BitmapRegisterName, encodeRegister, nearestNames } from '../registers/index.js'
import { decodeFunctionId, owners } from './function-id.js'
import { type FunctionName, functionIds } from './functions.js'
import { psci01Functions, type PsciVersion } from './psci.js'

type Call = readonly [functionName: FunctionName, ...args: bigint[]]

interface ServiceRow {
  name: string
  bit: number
  kernelName: string
  /** Every function of the service, by name. */
  functions: readonly FunctionName[]
  gated: boolean
  calls: readonly Call[]
}

interface BitmapRow {
  group: string
  resetValue: bigint
  services: readonly ServiceRow[]
}

const argument = (name: FunctionName): bigint => BigInt(functionIds[name])

/** In the order of the registers' ids, services in the order of their bits. A register without a row does not compile. */
const rows = {
  KVM_REG_ARM_STD_BMAP: {
    group: 'std',
    resetValue: 1n,
    services: [
      {
        name: 'trng-v1.0',
        bit: 0,
        kernelName: 'KVM_REG_ARM_STD_BIT_TRNG_V1_0',
        functions: ['TRNG_VERSION', 'TRNG_FEATURES', 'TRNG_GET_UUID', 'TRNG_RND32', 'TRNG_RND64'],
        gated: true,
        calls: [
          ['TRNG_VERSION'],
          ['TRNG_FEATURES', argument('TRNG_RND64')],
          ['TRNG_GET_UUID'],
          ['TRNG_RND32', 32n],
          ['TRNG_RND64', 64n],
        ],
      },
    ],
  },
  KVM_REG_ARM_STD_HYP_BMAP: {
    group: 'stdHyp',
    resetValue: 1n,
    services: [
      {
        name: 'pv-time',
        bit: 0,
        kernelName: 'KVM_REG_ARM_STD_HYP_BIT_PV_TIME',
        functions: ['PV_TIME_FEATURES', 'PV_TIME_ST'],
        gated: true,
        calls: [
          // The only one that needs no memory for a record of stolen time.
          ['SMCCC_ARCH_FEATURES', argument('PV_TIME_FEATURES')],
          ['PV_TIME_FEATURES', argument('PV_TIME_ST')],
          ['PV_TIME_ST'],
        ],
      },
    ],
  },
  KVM_REG_ARM_VENDOR_HYP_BMAP: {
    group: 'vendorHyp',
    resetValue: 3n,
    services: [
      {
        name: 'features',
        bit: 0,
        kernelName: 'KVM_REG_ARM_VENDOR_HYP_BIT_FUNC_FEAT',
        functions: ['VENDOR_HYP_CALL_UID', 'KVM_FEATURES'],
        gated: true,
        calls: [['KVM_FEATURES'], ['VENDOR_HYP_CALL_UID']],
      },
      {
        name: 'ptp',
        bit: 1,
        kernelName: 'KVM_REG_ARM_VENDOR_HYP_BIT_PTP',
        functions: ['KVM_PTP'],
        gated: true,
        // The virtual and the physical counter.
        calls: [
          ['KVM_PTP', 0n],
          ['KVM_PTP', 1n],
        ],
      },
    ],
  },
  KVM_REG_ARM_VENDOR_HYP_BMAP_2: {
    group: 'vendorHyp2',
    resetValue: 0n,
    services: [
      {
        name: 'discover-impl-ver',
        bit: 0,
        kernelName: 'KVM_REG_ARM_VENDOR_HYP_BIT_DISCOVER_IMPL_VER',
        functions: ['KVM_DISCOVER_IMPL_VER'],
        gated: false,
        calls: [],
      },
      {
        name: 'discover-impl-cpus',
        bit: 1,
        kernelName: 'KVM_REG_ARM_VENDOR_HYP_BIT_DISCOVER_IMPL_CPUS',
        functions: ['KVM_DISCOVER_IMPL_CPUS'],
        gated: false,
        calls: [],
      },
    ],
  },
} as const satisfies Readonly<Record<BitmapRegisterName, BitmapRow>>

type Row = (typeof rows)[BitmapRegisterName]

/** What `vm.services` calls a bitmap register, after the owner of its functions. */
export type ServiceGroup = Row['group']

type RowOfService<Group extends ServiceGroup = ServiceGroup> = Extract<
  Row,
  { group: Group }
>['services'][number]

/** A service with a name, of one bitmap register or of any. */
export type ServiceName<Group extends ServiceGroup = ServiceGroup> = RowOfService<Group>['name']

/** A bit for which no service is known here, as `bit-<n>`. */
export type UnnamedService = `bit-${number}`

type GatedRow = Extract<RowOfService, { gated: true }>

/** Name of a service whose functions KVM itself implements. */
export type GatedServiceName = GatedRow['name']

/** A function of such a service. */
export type GatedFunctionName = GatedRow['functions'][number]

/** A guest's call, with arguments from x1 onwards. */
export interface ServiceCall {
  functionId: number
  args: readonly bigint[]
}

export interface Service {
  /** Kebab case, as `vm.services` names it. */
  name: ServiceName
  /** 0 to 63. */
  bit: number
  /** The kernel's name of the bit. */
  kernelName: string
  /** Ids of its functions. */
  functions: readonly number[]
  /**
   * Whether KVM itself implements the functions, and only while the bit is set. False if the bit only advertises them in
   * KVM_FEATURES: KVM then refuses such a function either way, unless userspace uses the SMCCC filter to forward it to itself.
   */
  gated: boolean
  /**
   * Calls for which KVM returns something other than NOT_SUPPORTED while the guest can discover the service; PV_TIME_FEATURES and
   * PV_TIME_ST only for a vCPU with stolen time. The first call proves that the guest can. Empty if KVM does not implement the
   * functions.
   */
  calls: readonly ServiceCall[]
}

export interface GatedService extends Service {
  name: GatedServiceName
  gated: true
}

export interface ServiceBitmap {
  /** Id of the register. */
  register: bigint
  name: BitmapRegisterName
  group: ServiceGroup
  /** Value in a VM that nobody has configured, on every kernel that has the register. */
  resetValue: bigint
  /** In order of their bits, which may leave gaps. */
  services: readonly Service[]
}

function serviceOf({ functions, calls, ...row }: RowOfService): Service {
  return {
    ...row,
    functions: functions.map((name) => functionIds[name]),
    calls: calls.map(([name, ...args]) => ({ functionId: functionIds[name], args })),
  }
}

/** By group, in the order of the registers' ids. */
export const serviceBitmaps = Object.fromEntries(
  (Object.keys(rows) as BitmapRegisterName[]).map((name): [ServiceGroup, ServiceBitmap] => {
    const { group, resetValue, services } = rows[name]
    return [
      group,
      { register: encodeRegister(name), name, group, resetValue, services: services.map(serviceOf) },
    ]
  }),
) as Readonly<Record<ServiceGroup, ServiceBitmap>>

function isGated(service: Service): service is GatedService {
  return service.gated
}

/** Every service whose functions KVM itself implements. */
export const gatedServices: readonly GatedService[] = Object.values(serviceBitmaps)
  .flatMap(({ services }) => services)
  .filter(isGated)

const bitmapsById = new Map(Object.values(serviceBitmaps).map((entry) => [entry.register, entry]))

/** The bitmap with this register id, if it is one. */
export function serviceBitmapOf(register: bigint): ServiceBitmap | undefined {
  return bitmapsById.get(register)
}

/** The service of a bit of a bitmap register, if one is known. */
export function serviceOfBit({ services }: ServiceBitmap, bit: number): Service | undefined {
  return services.find((service) => service.bit === bit)
}

/** All bits that stand for a known service. The bits that a given kernel accepts are in its report, not here. */
export function knownMask(group: ServiceGroup): bigint {
  return serviceBitmaps[group].services.reduce((mask, { bit }) => mask | (1n << BigInt(bit)), 0n)
}

/** Thrown for a service a bitmap has no bit for. */
export class UnknownServiceError extends RangeError {
  override readonly name = 'UnknownServiceError'
  readonly code = 'ERR_KVM_UNKNOWN_SERVICE'
}

/** Services that `value` shows, lowest bit first. A bit without a known service is `bit-<n>`. */
export function servicesInBitmap<Group extends ServiceGroup>(
  group: Group,
  value: bigint,
): (ServiceName<Group> | UnnamedService)[] {
  return Array.from({ length: 64 }, (_, bit) => bit)
    .filter((bit) => ((value >> BigInt(bit)) & 1n) === 1n)
    .map((bit) => {
      const service = serviceOfBit(serviceBitmaps[group], bit)
      return service === undefined ? (`bit-${bit}` as const) : (service.name as ServiceName<Group>)
    })
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
 * Whether KVM hands a call to its handler whatever the bitmaps say: SMCCC_VERSION, ARCH_FEATURES, PSCI 0.1's ids, and the first 32
 * functions of the standard owner. Bits 31, 30 and 23:16 do not matter for those, so that 0x04000003 passes too and PSCI refuses it
 * (`kvm_smccc_default_allowed`).
 *
 * With `psci`, whether it does so for a vCPU of that version, by the rule of version 6 of the series that brought the bitmaps
 * (`kvm_psci_func_id_is_valid`): a vCPU of PSCI 0.1 reaches CPU_OFF and CPU_ON of 0.1 and no other PSCI function, every other vCPU the
 * standard owner's 32 and none of 0.1's. Released kernels leave that to the handler, which refuses the same ids.
 */
export function allowedByDefault(functionId: number, psci?: PsciVersion): boolean {
  if (functionId === functionIds.SMCCC_VERSION || functionId === functionIds.SMCCC_ARCH_FEATURES) return true
  const { owner, number } = decodeFunctionId(functionId)
  const inRange = owner === owners.STANDARD && number <= SMCCC_PSCI_LAST
  const of01 = psci01Functions.find(({ id }) => id === functionId)
  switch (psci) {
    case undefined:
      return inRange || of01 !== undefined
    case '0.1':
      return of01?.kvm === true
    default:
      return inRange
  }
}

export interface Gate {
  group: ServiceGroup
  register: bigint
  bit: number
  service: GatedService
}

const gates = new Map<number, Gate>(
  Object.values(serviceBitmaps).flatMap(({ group, register, services }) =>
    services
      .filter(isGated)
      .flatMap((service) =>
        service.functions.map((id) => [id, { group, register, bit: service.bit, service }] as const),
      ),
  ),
)

/**
 * What decides whether a guest's call of a function reaches KVM's handler: a bit of a bitmap register, nothing (`default`), or never
 * (`denied`). On a kernel without the gate's register the call always reaches the handler. The three SMCCC_ARCH_WORKAROUND functions
 * are denied here, and yet answered by `hvc`: KVM answers them before its gate.
 *
 * @param psci the PSCI version of the calling vCPU; see `allowedByDefault`
 * @throws RangeError if `functionId` is not an unsigned 32-bit number
 */
export function gateOf(functionId: number, psci?: PsciVersion): Gate | 'default' | 'denied' {
  return gates.get(functionId) ?? (allowedByDefault(functionId, psci) ? 'default' : 'denied')
}
