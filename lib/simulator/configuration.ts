import {
  coprocessors,
  decodeRegister,
  encodeRegister,
  idParts,
  registerWidth,
  setClearPairs,
  U64,
} from '../registers/index.js'
import { configurationOf, registersOf } from '../report/registers.js'
import type { Configuration, Report, ReportedRegister } from '../report/report.js'
import { featureNames } from '../uapi.js'
import { SimulatorError } from './errors.js'
import { firmwareRegister } from './firmware-registers.js'
import type { Host } from './host.js'
import { idRegister } from './id-registers.js'
import { describePmu, type Pmu, pmuRegister } from './pmu-registers.js'
import {
  CoreRegister,
  CounterRegister,
  PstateRegister,
  recordedRegister,
  VectorLengthsRegister,
  VectorRegister,
} from './stored-registers.js'
import type { Register, RegisterFile } from './state.js'
import { timerControl } from './timer-control.js'

const INDEX = 0xffffn
const SVE_VLS = encodeRegister('KVM_REG_ARM64_SVE_VLS')

/** Register files already built, by host. A file depends only on the report. */
const built = new WeakMap<Host, Map<Configuration | null, RegisterFile>>()

/**
 * Returns the registers of a vCPU with these feature bits; `mte` says whether its VM has memory tagging.
 * @throws SimulatorError `ERR_KVM_SIMULATOR_NOT_RECORDED` if the report does not record such a vCPU
 */
export function registerFile(host: Host, features: number, mte: boolean): RegisterFile {
  const { report } = host
  const names = featureNames(features)
  const configuration = configurationOf(report, names, mte)
  if (configuration === undefined || (configuration !== null && 'refused' in configuration)) {
    throw new SimulatorError(
      'ERR_KVM_SIMULATOR_NOT_RECORDED',
      `The report of ${report.host.release} does not record a vCPU with the features ` +
        `${names.join(', ')}${mte ? ', in a VM with memory tagging' : ''}. Probe the host again with all features.`,
    )
  }
  const files = built.get(host) ?? new Map<Configuration | null, RegisterFile>()
  built.set(host, files)
  const file = files.get(configuration) ?? buildRegisterFile(report, configuration)
  files.set(configuration, file)
  return file
}

/** Returns the registers of a configuration of the report; null means its base configuration, a vCPU with `psci-0.2` alone. */
function buildRegisterFile(report: Report, configuration: Configuration | null): RegisterFile {
  const listed = registersOf(report, configuration)
  const ids = BigUint64Array.from(listed, ({ id }) => BigInt(id))
  const slots = new Map([...ids].map((id, slot) => [id, slot]))
  for (const [set, clear] of setClearPairs) {
    const slot = slots.get(set)
    if (slot !== undefined && slots.has(clear)) slots.set(clear, slot)
  }
  const pmu = describePmu(listed)
  const registers = listed.map((register, index) => {
    const id = ids[index]!
    return [id, buildRegister(report, register, slots.get(id)!, slots, pmu)] as const
  })
  const byId = new Map(registers)
  return {
    ids,
    byId,
    everywhere: new Map(invariants(ids).map((id) => [id & INDEX, byId.get(id)!])),
    slots,
    reset: listed.map(({ value }) => BigInt(value ?? 0)),
  }
}

/**
 * System registers that belong to the host, and for which old kernels have a separate table: it lists its registers before all
 * others, which are in the order of their encodings, and its look-up ignores the space
 * (`arch/arm64/kvm/sys_regs.c:get_invariant_sys_reg`).
 */
function invariants(ids: BigUint64Array): bigint[] {
  const listed = [...ids].filter((id) => idParts(id).coproc === coprocessors.SYSREG)
  const first = listed.reduce((lowest, id) => (id < lowest ? id : lowest), U64)
  return listed.slice(0, listed.indexOf(first)).filter((id) => decodeRegister(id).space === 'sysreg')
}

function buildRegister(
  report: Report,
  register: ReportedRegister,
  slot: number,
  slots: ReadonlyMap<bigint, number>,
  pmu: Pmu,
): Register {
  const id = BigInt(register.id)
  const width = registerWidth(id)
  if (register.value === null) return new CounterRegister(id)
  const { space, name } = decodeRegister(id)
  if (space === 'core') return new (name === 'pstate' ? PstateRegister : CoreRegister)(slot, width)
  if (id === SVE_VLS) return new VectorLengthsRegister(slot, width)
  if (space === 'sve') return new VectorRegister(slot, width, slots.get(SVE_VLS)!)
  const stored = recordedRegister(register, slot)
  return (
    firmwareRegister(register) ??
    idRegister(report, register, slot) ??
    pmuRegister(pmu, register, slot) ??
    timerControl(register, slots, stored) ??
    stored
  )
}
