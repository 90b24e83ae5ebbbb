/** Restores what a state holds of a VM besides its vCPUs' registers, and reads it back. */
import type { Attributes } from '../kvm/attributes.js'
import { KvmError, type Vcpu, type Vm } from '../kvm/index.js'
import { encodeRegister } from '../registers/index.js'
import {
  KVM_DEV_ARM_VGIC_CTRL_INIT,
  KVM_DEV_ARM_VGIC_GRP_ADDR,
  KVM_DEV_ARM_VGIC_GRP_CTRL,
  KVM_DEV_ARM_VGIC_GRP_NR_IRQS,
  KVM_VGIC_V3_ADDR_TYPE_DIST,
  KVM_VGIC_V3_ADDR_TYPE_REDIST,
  KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION,
} from '../uapi.js'
import { captureGic } from './device-capture.js'
import type { GicState, PmuSetting, VcpuGicState } from './device-state.js'
import {
  interfaceName,
  placeName,
  readVcpuGic,
  type RegisterRefusal,
  writeDistributor,
  writeVcpuGic,
} from './gic-registers.js'
import type { State, VcpuCapture } from './state.js'

/** A value of the GIC that the destination accepted and then shows differently. */
export interface DeviceDifference {
  /** `GICD_ISENABLER1 + 4`, `ICC_PMR_EL1`, `lines of private interrupts` */
  what: string
  /** KVM's id of the vCPU; absent for what belongs to the VM. */
  vcpu?: number
  source: string
  destination: string
}

/** Attempts a step of the restore, and notes what KVM refused. */
export type AttemptDevice = (what: string, vcpu: number | undefined, perform: () => void) => boolean

interface Target {
  from: VcpuCapture
  to: Vcpu
}

/**
 * Sets up the VM's devices once every vCPU is initialised, before their registers are written: a GIC changes ID registers, and the
 * PMU's counters decide what PMCR_EL0 may hold. Returns the GIC.
 */
export function setUpDevices(
  vm: Vm,
  state: State,
  targets: readonly Target[],
  attempt: AttemptDevice,
): Attributes | undefined {
  const gic = state.vm.gic ? makeGic(vm, state.vm.gic, attempt) : undefined
  for (const { from, to } of targets) {
    if (gic !== undefined) setTimers(from, to, attempt)
    for (const setting of from.pmu ?? []) {
      attempt(pmuText(setting), from.id, () => setPmu(to, setting))
    }
    const { stolenTime } = from
    if (stolenTime) {
      attempt(`stolen time at ${stolenTime}`, from.id, () => to.stolenTime.setAddress(BigInt(stolenTime)))
    }
  }
  const [first] = targets
  if (state.vm.counterOffset && first !== undefined) continueCounter(vm, first, attempt)
  return gic
}

function makeGic(vm: Vm, state: GicState, attempt: AttemptDevice): Attributes | undefined {
  const { distributor, redistributors, irqs, initialised } = state
  let gic: Attributes | undefined
  attempt('GICv3', undefined, () => (gic = vm.createDevice('KVM_DEV_TYPE_ARM_VGIC_V3').attributes))
  const set = (what: string, group: number, attribute: bigint, data?: Uint8Array): void => {
    if (gic !== undefined && !attempt(`GICv3: ${what}`, undefined, () => gic!.set(group, attribute, data))) {
      // Without one of its settings, the others say nothing.
      gic = undefined
    }
  }
  const setAddress = (what: string, type: bigint, address: bigint): void =>
    set(what, KVM_DEV_ARM_VGIC_GRP_ADDR, type, bytesOf(BigUint64Array.of(address)))
  // Before it is set or the GIC initialised, there are only those of the vCPUs.
  if (irqs > 32) set(`${irqs} interrupts`, KVM_DEV_ARM_VGIC_GRP_NR_IRQS, 0n, bytesOf(Uint32Array.of(irqs)))
  if (distributor !== null) {
    setAddress(`distributor at ${distributor}`, KVM_VGIC_V3_ADDR_TYPE_DIST, BigInt(distributor))
  }
  for (const [index, { address, count }] of redistributors.entries()) {
    const what = `redistributors at ${address}`
    if (count === 0) setAddress(what, KVM_VGIC_V3_ADDR_TYPE_REDIST, BigInt(address))
    else {
      const region = (BigInt(count) << 52n) | BigInt(address) | BigInt(index)
      setAddress(`${what} for ${count} vCPUs`, KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION, region)
    }
  }
  if (initialised) set('initialisation', KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_VGIC_CTRL_INIT)
  return gic
}

function bytesOf(numbers: Uint32Array | BigUint64Array): Uint8Array {
  return new Uint8Array(numbers.buffer)
}

function setTimers({ id, timers = {} }: VcpuCapture, to: Vcpu, attempt: AttemptDevice): void {
  for (const name of ['virtual', 'physical', 'hypervisorVirtual', 'hypervisorPhysical'] as const) {
    const intid = timers[name]
    if (intid === undefined) continue
    attempt(`interrupt ${intid} of the timer ${name}`, id, () => {
      if (isAbsent(() => to.timers.irq(name))) return
      if (to.timers.irq(name) !== intid) to.timers.setIrq(name, intid)
    })
  }
}

/** A guest without EL2 does not know the timers of a hypervisor, which old kernels lack. */
function isAbsent(read: () => unknown): boolean {
  try {
    read()
    return false
  } catch (error) {
    if (error instanceof KvmError && error.code === 'ENXIO') return true
    throw error
  }
}

function setPmu({ pmu }: Vcpu, setting: PmuSetting): void {
  switch (setting.set) {
    case 'irq':
      return pmu.setIrq(setting.intid)
    case 'init':
      return pmu.init()
    case 'filter': {
      const { base, count, action } = setting
      return pmu.filter({ base, count, action })
    }
    case 'pmu':
      return pmu.setPmu(setting.id)
    default:
      return pmu.setCounters(setting.count)
  }
}

function pmuText(setting: PmuSetting): string {
  const { set, ...values } = setting
  return `PMU: ${[set, ...Object.values(values)].join(' ')}`
}

const COUNTER = encodeRegister('KVM_REG_ARM_TIMER_CNT')

/**
 * With an offset KVM ignores writes to the counters. An offset of 0 shows the host's counter, from which follows the one that makes
 * the guest's go on where it was.
 */
function continueCounter(vm: Vm, { from, to }: Target, attempt: AttemptDevice): void {
  const captured = from.registers.find(({ id }) => BigInt(id) === COUNTER)
  if (captured === undefined) return
  attempt('counter offset', undefined, () => {
    vm.setCounterOffset(0n)
    const offset = to.registers.get(COUNTER) - BigInt(captured.value)
    vm.setCounterOffset(BigInt.asUintN(64, offset))
  })
}

/** Writes the GIC's registers, once the vCPUs have their affinities. */
export function writeGic(
  gic: Attributes,
  state: State,
  targets: readonly Target[],
  refused: (refusal: RegisterRefusal, vcpu?: number) => void,
): void {
  const [first] = targets
  if (!state.vm.gic?.initialised || first === undefined) return
  for (const refusal of writeDistributor(gic, state.vm.gic, first.to)) refused(refusal)
  for (const { from, to } of targets) {
    if (!from.gic) continue
    for (const refusal of writeVcpuGic(gic, from.gic, to)) refused(refusal, from.id)
  }
}

/** Reads the GIC back and returns what differs from the state. */
export function compareDevices(
  vm: Vm,
  gic: Attributes | undefined,
  state: State,
  targets: readonly Target[],
): DeviceDifference[] {
  const differences: DeviceDifference[] = []
  if (gic !== undefined && state.vm.gic) {
    const mine = flatten(state.vm.gic)
    differences.push(...differing(mine, flatten(captureGic(vm, gic))))
  }
  for (const { from, to } of targets) {
    if (gic !== undefined && state.vm.gic?.initialised && from.gic) {
      const found = flattenVcpu(readVcpuGic(gic, to))
      differences.push(...differing(flattenVcpu(from.gic), found, from.id))
    }
  }
  return differences
}

function differing(
  mine: ReadonlyMap<string, string>,
  found: ReadonlyMap<string, string>,
  vcpu?: number,
): DeviceDifference[] {
  return [...new Set([...mine.keys(), ...found.keys()])].flatMap((what) => {
    const [source = 'none', destination = 'none'] = [mine.get(what), found.get(what)]
    return source === destination ? [] : [{ what, ...(vcpu !== undefined && { vcpu }), source, destination }]
  })
}

function flatten({ distributor, redistributors, irqs, registers, lines }: GicState): Map<string, string> {
  return new Map([
    ['address of the distributor', distributor ?? 'none'],
    [
      'addresses of the redistributors',
      redistributors.map(({ address, count }) => `${address} × ${count}`).join(', '),
    ],
    ['number of interrupts', String(irqs)],
    ...flattenBanks(registers),
    ...lines.map((line, index): [string, string] => [`lines from interrupt ${32 * (index + 1)}`, line]),
  ])
}

function flattenVcpu({ redistributor, cpuInterface, lines }: VcpuGicState): Map<string, string> {
  return new Map([
    ...flattenBanks(redistributor),
    ...cpuInterface.map((register): [string, string] => [interfaceName(register), register.value]),
    ['lines of private interrupts', lines],
  ])
}

function flattenBanks(banks: GicState['registers']): [string, string][] {
  return banks.flatMap((bank) =>
    bank.values.map((value, index): [string, string] => [placeName(bank, index), value]),
  )
}
