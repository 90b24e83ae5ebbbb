/** The calls KVM implements besides PSCI (`arch/arm64/kvm/{hypercalls,trng,pvtime}.c`). */
import {
  functionIds,
  type GatedFunctionName,
  gatedServices,
  gateOf,
  kvmUid,
  resultWord,
  serviceBitmaps,
  smcccReturns,
  trngReturns,
  workarounds,
} from '../../hypercalls/index.js'
import { encodeRegister } from '../../registers/index.js'
import { writeGuestMemory } from '../memory-slots.js'
import { generalRegister } from '../guest-registers.js'
import type { VcpuState } from '../state.js'
import { counterValue } from '../stored-registers.js'
import { isAllowed } from './gate.js'
import { setResults } from './results.js'

const { SUCCESS, NOT_SUPPORTED } = smcccReturns
const SMCCC_1_1 = 0x10001n
const TRNG_1_0 = 0x10000n
/** The id of KVM's TRNG, as four 32-bit words; the first word holds the first bytes. */
const TRNG_UUID = [0x00e0_210dn, 0xeb11_8443n, 0x4452_7080n, 0x4c5a_4e55n]
/** `sizeof(struct pvclock_vcpu_stolen_time)` */
const STOLEN_TIME_SIZE = 64
const TIMER_CNT = encodeRegister('KVM_REG_ARM_TIMER_CNT')
const PTIMER_CNT = encodeRegister('KVM_REG_ARM_PTIMER_CNT')

const trngFunctions: ReadonlySet<bigint> = new Set(
  gatedServices.filter(({ name }) => name === 'trng-v1.0').flatMap(({ functions }) => functions.map(BigInt)),
)

/** The results: x0, and x1 to x3 if they are not 0. */
type Results = readonly bigint[]

/** x1 as a whole, and truncated to the 32 bits that most functions use. */
interface Argument {
  whole: bigint
  narrow: number
}

type Handler = (vcpu: VcpuState, argument: Argument) => Results

/** One handler for each function that KVM implements besides PSCI's: a gated function without one does not compile. */
const handlers: Readonly<Record<GatedFunctionName | 'SMCCC_VERSION' | 'SMCCC_ARCH_FEATURES', Handler>> = {
  SMCCC_VERSION: () => [SMCCC_1_1],
  SMCCC_ARCH_FEATURES: (vcpu, { narrow }) => [resultWord(archFeatures(vcpu, narrow))],
  TRNG_VERSION: () => [TRNG_1_0],
  TRNG_FEATURES: (_vcpu, { whole }) => [resultWord(trngFunctions.has(whole) ? SUCCESS : NOT_SUPPORTED)],
  TRNG_GET_UUID: () => TRNG_UUID,
  TRNG_RND32: (_vcpu, { narrow }) => randomBits(narrow, 32),
  TRNG_RND64: (_vcpu, { narrow }) => randomBits(narrow, 64),
  PV_TIME_FEATURES: ({ stolenTimeBase }, { narrow }) => {
    const isKnown = narrow === functionIds.PV_TIME_FEATURES || narrow === functionIds.PV_TIME_ST
    return [resultWord(isKnown && stolenTimeBase !== null ? SUCCESS : NOT_SUPPORTED)]
  },
  PV_TIME_ST: (vcpu) => {
    const { stolenTimeBase } = vcpu
    if (stolenTimeBase === null) return [resultWord(NOT_SUPPORTED)]
    writeGuestMemory(vcpu, stolenTimeBase, new Uint8Array(STOLEN_TIME_SIZE), 'kvm')
    return [stolenTimeBase]
  },
  VENDOR_HYP_CALL_UID: () => kvmUid,
  KVM_FEATURES: (vcpu) => [
    bitmapOr(vcpu, serviceBitmaps.vendorHyp.register, offeredVendorServices(vcpu)),
    0n,
    bitmapOr(vcpu, serviceBitmaps.vendorHyp2.register, 0n),
  ],
  KVM_PTP: (vcpu, { narrow }) => pointInTime(vcpu, narrow),
}

const handlersById = new Map<number, Handler>(
  (Object.keys(handlers) as (keyof typeof handlers)[]).map((name) => [functionIds[name], handlers[name]]),
)

/** Returns the results of a call, or null for a call that PSCI handles. */
export function callService(vcpu: VcpuState, functionId: number): 'on' | null {
  const handler = handlersById.get(functionId)
  if (handler === undefined) return null
  const whole = generalRegister(vcpu, 1)
  const argument = { whole, narrow: Number(BigInt.asUintN(32, whole)) }
  const results = isOffered(vcpu, functionId) ? handler(vcpu, argument) : [resultWord(NOT_SUPPORTED)]
  return setResults(vcpu, [...results, 0n, 0n, 0n].slice(0, 4))
}

/** Returns whether the kernel has the service of a function at all; it may merely lack a bitmap to hide it. */
function isOffered({ vm }: VcpuState, functionId: number): boolean {
  const gate = gateOf(functionId)
  return typeof gate === 'string' || vm.host.traits.hypercalls.services.includes(gate.service.name)
}

function archFeatures(vcpu: VcpuState, feature: number): number {
  if (feature === functionIds.PV_TIME_FEATURES) {
    return isAllowed(vcpu, feature) && isOffered(vcpu, feature) ? SUCCESS : NOT_SUPPORTED
  }
  const workaround = workarounds.find(({ functionId }) => functionId === feature)
  const level = workaround && vcpu.file!.byId.get(workaround.register)?.read(vcpu)
  return workaround?.levels.find(({ value }) => value === level)?.archFeatures ?? NOT_SUPPORTED
}

function bitmapOr(vcpu: VcpuState, register: bigint, otherwise: bigint): bigint {
  const value = vcpu.file!.byId.get(register)?.read(vcpu)
  return typeof value === 'bigint' ? value : otherwise
}

/** The bitmap of a kernel that has the vendor's services and no register for them. */
function offeredVendorServices({ vm }: VcpuState): bigint {
  const offered: readonly string[] = vm.host.traits.hypercalls.services
  return serviceBitmaps.vendorHyp.services
    .filter(({ name }) => offered.includes(name))
    .reduce((word, { bit }) => word | (1n << BigInt(bit)), 0n)
}

/** x1 to x3 hold the bits, the highest register the lowest ones. */
function randomBits(count: number, width: 32 | 64): Results {
  if (count > 3 * width) return [resultWord(trngReturns.INVALID_PARAMETERS)]
  const bytes = crypto.getRandomValues(new BigUint64Array(3))
  const entropy = BigInt.asUintN(count, (bytes[0]! << 128n) | (bytes[1]! << 64n) | bytes[2]!)
  const words = [2, 1, 0].map((index) => BigInt.asUintN(width, entropy >> BigInt(index * width)))
  return [resultWord(trngReturns.SUCCESS), ...words]
}

/** Wall clock in nanoseconds and a counter, each as its upper and its lower 32 bits. */
function pointInTime(vcpu: VcpuState, counter: number): Results {
  if (counter > 1) return [resultWord(NOT_SUPPORTED)]
  const wall = BigInt(Date.now()) * 1_000_000n
  const ticks = counterValue(vcpu.vm, counter === 0 ? TIMER_CNT : PTIMER_CNT)
  return [wall >> 32n, BigInt.asUintN(32, wall), ticks >> 32n, BigInt.asUintN(32, ticks)]
}
