/**
 * The states that are restored onto every real kernel and onto its simulator, and what came of each register. A state is made on the
 * simulated source; whether that is a state the source can have at all is what kernels.test.ts proves otherwise.
 */
import type { Backend } from '../../lib/backend.js'
import { capture, captureHost } from '../../lib/migration/capture.js'
import { attemptRestore, type RegisterOutcome, type RestoreAttempt } from '../../lib/migration/attempt.js'
import type { State } from '../../lib/migration/state.js'
import { type Kvm, KvmError, openKvm, type Registers } from '../../lib/kvm/index.js'
import { decodeRegister, isFeatureIdRegister, registerWidth } from '../../lib/registers/index.js'
import { builtInReport, simulator } from '../../lib/hosts/index.js'
import { factsOfReport } from '../../lib/migration/vmm/facts.js'
import { vmmNames, vmmRules } from '../../lib/migration/vmm/names.js'
import { vmOn } from '../../lib/migration/vmm/rules.js'
import type { VcpuFeature } from '../../lib/uapi.js'
import type { RecordedHost } from './lab-hosts.js'

export interface SourceState {
  source: string
  what: string
  state: State
}

/** Of each of the hosts, the states its VMs are moved in. */
export function sourceStates(hosts: readonly RecordedHost[]): readonly SourceState[] {
  return hosts.flatMap(({ name, cpu }) => {
    using kvm = openKvm(simulator(name))
    const states = { ...statesOf(kvm), ...(cpu === 'max' ? widestState(kvm) : {}) }
    return Object.entries(states).map(([what, state]) => ({ source: name, what, state }))
  })
}

/** Of each of the hosts, the fresh VM of every VMM; VMMs that choose the same features share one. */
export function freshStates(hosts: readonly RecordedHost[]): readonly SourceState[] {
  return hosts.flatMap(({ name }) => {
    using kvm = openKvm(simulator(name))
    const facts = factsOfReport(builtInReport(name))
    const sets = new Map(
      vmmNames().map((vmm): [string, VcpuFeature[]] => {
        const { features } = vmOn(vmmRules(vmm), facts)
        return [features.join(' '), features]
      }),
    )
    return [...sets].map(([what, features]) => ({
      source: name,
      what,
      state: captureHost(kvm, { features }),
    }))
  })
}

function statesOf(kvm: Kvm): Record<string, State> {
  return {
    defaults: captureHost(kvm),
    'PSCI 0.1': captureHost(kvm, { features: [] }),
    'elected services and an older PSCI': elected(kvm),
    'ID registers lowered': lowered(kvm),
    'registers in use, after a run': inUse(kvm, ['psci-0.2']),
    'two vCPUs with a PMU': captureHost(kvm, { features: hasPmu(kvm), vcpus: 2 }),
  }
}

function hasPmu(kvm: Kvm): VcpuFeature[] {
  return kvm.checkExtension('KVM_CAP_ARM_PMU_V3') > 0 ? ['psci-0.2', 'pmu-v3'] : ['psci-0.2']
}

function elected(kvm: Kvm): State {
  using vm = kvm.createVm()
  const { registers } = vm.createVcpu(0)
  const { stdHyp, vendorHyp2 } = vm.services.supported
  vm.services.elect({ std: [], stdHyp, vendorHyp: [], vendorHyp2 })
  registers.set('KVM_REG_ARM_PSCI_VERSION', 2n)
  return capture(kvm, vm)
}

/** Every field of every feature ID register as low as the source lets it be. */
function lowered(kvm: Kvm): State {
  using vm = kvm.createVm()
  const { registers } = vm.createVcpu(0)
  for (const id of registers.list()) {
    if (!isFeatureIdRegister(id)) continue
    for (let shift = 0n; shift < 64n; shift += 4n) {
      const others = registers.get(id) & ~(0xfn << shift)
      for (let value = 0n; value < 16n; value++) {
        if (accepts(registers, id, others | (value << shift))) break
      }
    }
  }
  return capture(kvm, vm)
}

function accepts(registers: Registers, id: bigint, value: bigint): boolean {
  try {
    registers.set(id, value)
    return true
  } catch (error) {
    if (error instanceof KvmError) return false
    throw error
  }
}

/** Something other than what a fresh vCPU has in every register that takes it. */
function inUse(kvm: Kvm, features: readonly VcpuFeature[]): State {
  using vm = kvm.createVm()
  const vcpu = vm.createVcpu(0, { init: false })
  vcpu.init({ features })
  if (features.includes('sve')) {
    vcpu.registers.set('KVM_REG_ARM64_SVE_VLS', 0x3n)
    vcpu.finalize()
  }
  for (const [index, id] of vcpu.registers.list().entries()) {
    const { space, name } = decodeRegister(id)
    if (isFeatureIdRegister(id) || ['firmware', 'bitmap', 'timer'].includes(space)) continue
    // A guest at EL1; another mode would be another guest.
    if (name === 'pstate') continue
    accepts(vcpu.registers, id, BigInt.asUintN(Math.min(32, registerWidth(id)), pattern(index)))
  }
  if (!features.includes('pmu-v3')) vcpu.freeze()
  return capture(kvm, vm)
}

function pattern(index: number): bigint {
  return (0x9e37_79b9n * BigInt(index + 1)) & 0x7fff_ffffn
}

function widestState(kvm: Kvm): Record<string, State> {
  return {
    'SVE and a PMU': captureHost(kvm, { features: ['psci-0.2', 'pmu-v3', 'sve'] }),
    'short vectors, a PMU and pointer authentication, in use': inUse(kvm, [
      'psci-0.2',
      'pmu-v3',
      'sve',
      'ptrauth-address',
      'ptrauth-generic',
    ]),
    'AArch32 at EL1': captureHost(kvm, { features: ['psci-0.2', 'el1-32bit'] }),
  }
}

/** What became of a state's registers, one line for all that is not as it was. */
export interface RestoreAnswer {
  /** How many registers were restored as they were. */
  same: number
  lines: string[]
}

export function restoreAll(backend: Backend, states: readonly State[]): RestoreAnswer[] {
  using kvm = openKvm(backend)
  return states.map((state) => {
    using attempt = attemptRestore(kvm, state)
    return describeAttempt(attempt)
  })
}

function describeAttempt({ refusals, outcomes, unset }: RestoreAttempt): RestoreAnswer {
  const others = outcomes.filter(({ outcome }) => outcome !== 'same')
  return {
    same: outcomes.length - others.length,
    lines: [
      ...refusals.map(({ errno, ...step }) => `${JSON.stringify(step)}: ${errno}`),
      ...others.map(describe),
      ...unset.map(
        ({ vcpu, name, value }) => `${name} of vCPU ${vcpu} keeps ${isClock(name) ? 'time' : value}`,
      ),
    ],
  }
}

function describe(found: RegisterOutcome): string {
  const { vcpu, name, value, outcome } = found
  const more = outcome === 'differs' ? found.reads : outcome === 'same' ? '' : found.errno
  return `${name} = ${value} of vCPU ${vcpu}: ${outcome} ${more}`
}

function isClock(name: string): boolean {
  return /^KVM_REG_ARM_P?TIMER_(CNT|CTL)$/.test(name)
}
