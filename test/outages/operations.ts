/** What users do, each as one operation on a backend that may fail in any place. */
import { setImmediate } from 'node:timers/promises'
import { isDeepStrictEqual } from 'node:util'
import type { Backend, SystemFd } from '../../lib/backend.js'
import { checkGroups, conformance } from '../../lib/conformance/index.js'
import { fuzz } from '../../lib/fuzz/index.js'
import { apply } from '../../lib/fleet/baseline/apply.js'
import { computeBaseline } from '../../lib/fleet/baseline/baseline.js'
import { type BuiltInHost, builtInReport, simulator } from '../../lib/hosts/index.js'
import { kvmError } from '../../lib/kvm/errors.js'
import { type GuestMemory, type Kvm, openKvm, type Vm } from '../../lib/kvm/index.js'
import { bootMachine } from '../../lib/machine/index.js'
import { capture, captureHost } from '../../lib/migration/capture.js'
import type { State } from '../../lib/migration/state.js'
import { restore } from '../../lib/migration/restore.js'
import { census } from '../../lib/probe/census.js'
import { probe } from '../../lib/probe/probe.js'
import { recordingBackend, replay, type TraceEntry } from '../../lib/trace/index.js'
import { functionIdOf, functionIds, type PsciVersion, psciVersions } from '../../lib/hypercalls/index.js'
import { type MoveVerdict, verdict } from '../../lib/migration/verdict.js'
import { factsOfKvm } from '../../lib/migration/vmm/facts.js'
import { vmmRules } from '../../lib/migration/vmm/names.js'
import { vmOn } from '../../lib/migration/vmm/rules.js'
import { kernelImage } from '../machine/images.js'

export const HOST = 'linux-6.12-neoverse-n1'
/** A host with every feature that a vCPU may have. */
const RICH_HOST = 'linux-7.2-max-qemu-11'

export interface Operation {
  /** The result, for a comparison. */
  perform: (backend: Backend) => unknown
  /** Calls tried in a quick test, spread evenly over the operation. */
  samples: number
  /** Default: `HOST`. */
  host?: BuiltInHost
  /** Whether a result tells of an accident; the default is `tellsOfFault`. */
  tells?: (faulty: unknown, sound: unknown) => boolean
}

/** The backend on which an operation is performed. */
export function targetOf({ host = HOST }: Operation): Backend {
  return simulator(host)
}

const now = new Date(0)

/** Values that depend on the time, which no two captures share. */
function withoutTime(captured: State): unknown {
  return captured.vcpus.map((vcpu) => vcpu.registers.filter(({ name }) => !name.includes('TIMER_CNT')))
}

function hostState(): ReturnType<typeof captureHost> {
  using kvm = openKvm(simulator(HOST))
  return captureHost(kvm, { now, vcpus: 2 })
}

const state = hostState()
const agreed = computeBaseline(
  ['linux-6.12-neoverse-n1', 'linux-7.2-max'].map((name) => ({ name, report: builtInReport(name) })),
)

/** What the checks found, without the time that each took. */
function verdicts(...given: Parameters<typeof conformance>): unknown {
  return conformance(...given).map(({ group, name, verdict: found, did }) => ({
    group,
    name,
    verdict: found,
    did,
  }))
}

/** A VM with a life of its own: memory, a device, a first run, one in flight. */
async function liveAndDie(backend: Backend): Promise<unknown> {
  using kvm = openKvm(backend)
  using vm = kvm.createVm()
  using memory = kvm.createMemory(0x1_0000)
  vm.mapMemory(0, { address: 0x4000_0000n, memory })
  const first = vm.createVcpu(0)
  const second = vm.createVcpu(1, { features: ['psci-0.2', 'power-off'] })
  using device = vm.createDevice('KVM_DEV_TYPE_ARM_VGIC_V3')
  const addresses = [0x800_0000n, 0x80a_0000n].map(
    (address) => new Uint8Array(BigUint64Array.of(address).buffer),
  )
  device.attributes.set(0, 2n, addresses[0])
  device.attributes.set(0, 3n, addresses[1])
  device.attributes.set(4, 0n)
  vm.services.elect({ std: [], vendorHyp: ['ptp'] })
  const { x } = first.hypercall(functionIds.SMCCC_VERSION)
  const run = second.run()
  second.kick()
  const exit = await run
  first.freeze()
  return [x, exit.reason, first.mpState, first.getEvents(), vm.services.elected]
}

const DEVICE = 0x900_0000n
/** `str x2, [x1]`; `hvc #0`; `b .` */
const [STORE, HVC, STAY] = [0xf900_0022, 0xd400_0002, 0x1400_0000]

/** A VM with every device and setting that a state holds. */
function vmWithDevices(kvm: Kvm, memory: GuestMemory): Vm {
  const vm = kvm.createVm()
  try {
    vm.mapMemory(3, { address: 0x4000_0000n, memory, logDirtyPages: true })
    for (const id of [0, 1]) vm.createVcpu(id, { features: ['psci-0.2', 'pmu-v3', 'sve'] })
    vm.createGic({ version: 3, distributor: 0x800_0000n, redistributors: 0x80a_0000n, irqs: 64 })
    for (const { pmu, timers, stolenTime, id } of vm.vcpus) {
      pmu.filter({ base: 0x11, count: 2, action: 'deny' })
      pmu.setCounters(2)
      pmu.setIrq(23)
      pmu.init()
      if (id === 0) timers.setIrq('virtual', 20)
      stolenTime.setAddress(0x4000_0000n + 64n * BigInt(id))
    }
    vm.filterCalls({ base: 0x8400_0000, count: 1, action: 'deny' })
    return vm
  } catch (error) {
    vm.close()
    throw error
  }
}

function stateWithDevices(): State {
  using kvm = openKvm(simulator(RICH_HOST))
  using memory = kvm.createMemory(0x1_0000)
  using vm = vmWithDevices(kvm, memory)
  return capture(kvm, vm, { now })
}

const rich = stateWithDevices()

/** A guest that writes to a device, makes a call and stays, with every way for events to get in and out of it. */
async function exchangeEvents(backend: Backend): Promise<unknown> {
  using kvm = openKvm(backend)
  using vm = kvm.createVm()
  using memory = kvm.createMemory(0x1_0000)
  memory.write(0, new Uint8Array(Uint32Array.of(STORE, STORE, HVC, STAY).buffer))
  vm.enableCapability('KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2', 1n)
  vm.mapMemory(0, { address: 0x4000_0000n, memory, logDirtyPages: true })
  const vcpu = vm.createVcpu(0)
  vm.createGic({ version: 3, distributor: 0x800_0000n, redistributors: 0x80a_0000n, irqs: 64 })
  vm.setGsiRouting([{ gsi: 0, pin: 1 }])
  vm.setCounterOffset(0x1234n)
  using doorbell = kvm.createEvent()
  using wire = kvm.createEvent()
  using resampled = kvm.createEvent()
  using rings = vm.mmio.doorbell(DEVICE + 0x100n, 4, doorbell, 1n)
  using raises = vm.connectIrq(0, wire, { resampled })
  using answers = vm.mmio.constant(DEVICE, 4, 5n)
  const written: unknown[] = []
  using posted = vm.mmio.posted(DEVICE, 8, (writes) => written.push(...writes))
  wire.signal()
  vm.setIrq(33, true)
  vcpu.setIrq(20, true)
  vcpu.setDebug({ step: true })
  vcpu.setDebug({ breakpoints: [0x4000_0000n] })
  vcpu.setDebug(null)
  for (const [name, value] of Object.entries({ pc: 0x4000_0000n, x1: DEVICE, x0: 0x8400_0000n })) {
    vcpu.registers.set(name, value)
  }
  const ends = Promise.all([doorbell.wait(), vcpu.run()])
  // Whatever fails before it is awaited closes the VM.
  ends.catch(() => undefined)
  doorbell.signal(3n)
  await setImmediate()
  vcpu.kick()
  const [rung, { reason }] = await ends
  const stepped = vcpu.runSync({ timeout: 1 }).reason
  const dirty = vm.getDirtyLog(0)
  vm.clearDirtyLog(0, dirty)
  for (const connection of [rings, raises, answers, posted]) connection.close()
  return [
    rung,
    reason,
    stepped,
    dirty,
    written,
    wire.take(),
    vcpu.registers.get('pc'),
    vm.checkExtension('KVM_CAP_IRQFD'),
  ]
}

/** A machine whose guest sends a letter on its serial port, starts again once, and switches off. */
async function bootAndOff(backend: Backend): Promise<unknown> {
  using kvm = openKvm(backend)
  const kernel = kernelImage()
  for (const [index, instruction] of [STORE, HVC].entries()) kernel.writeUInt32LE(instruction, 4 * index)
  const calls = [functionIdOf('PSCI_SYSTEM_RESET'), functionIdOf('PSCI_SYSTEM_OFF')]
  const machine = bootMachine({
    kvm,
    kernel,
    smp: 2,
    console: 'virtio',
    disks: [{ content: new Uint8Array(512) }],
    configure: ({ vcpus: [vcpu] }) => {
      vcpu!.registers.set('x0', BigInt(calls.shift()!))
      vcpu!.registers.set('x1', DEVICE)
      vcpu!.registers.set('x2', 0x41n)
    },
  })
  try {
    return [await machine.ended, machine.serial.transcript]
  } finally {
    await machine.close()
  }
}

/** How a VMM that restores into a VM of its own does it, as `check --live` on the destination. */
function judge(backend: Backend): unknown {
  using kvm = openKvm(backend)
  const rules = vmmRules('qemu')
  return verdict(state, kvm, rules, { destination: vmOn(rules, factsOfKvm(kvm)) })
}

function replayed(backend: Backend): unknown {
  const kvm = backend.open()
  if (typeof kvm === 'number') throw kvmError(kvm, { syscall: 'open' })
  const divergences: unknown[] = []
  try {
    replay(recorded, kvm, ({ line, replayed: found }) => divergences.push([line, found]))
  } finally {
    kvm.close()
  }
  return divergences
}

const recorded: (TraceEntry & { line: number })[] = []
await liveAndDie(
  recordingBackend(simulator(HOST), (entry) => recorded.push({ ...entry, line: recorded.length + 2 })),
)

/** Invents calls and compares the answers with those of a host that does not fail. */
function fuzzed(backend: Backend): unknown {
  const kvm = backend.open()
  const sound = simulator(HOST).open()
  if (typeof kvm === 'number') throw kvmError(kvm, { syscall: 'open' })
  try {
    return [...fuzz(sound as SystemFd, kvm, { seed: 1, operations: 400 })].length
  } finally {
    kvm.close()
  }
}

function censusOf(psci: PsciVersion): Operation {
  return {
    perform: (backend) => {
      using kvm = openKvm(backend)
      return census(kvm, { elect: { std: [] }, psci })
    },
    samples: 4,
    host: RICH_HOST,
  }
}

/** What an accident keeps a verdict from finding out is unknown. */
function tellsUnknown(faulty: unknown, sound: unknown): boolean {
  const { unknown, ...rest } = faulty as MoveVerdict
  const { unknown: expected, ...others } = sound as MoveVerdict
  const isLost = expected.every((fact) => unknown.includes(fact)) && unknown.length > expected.length
  return isDeepStrictEqual(faulty, sound) || (isLost && isDeepStrictEqual(rest, others))
}

/** A difference is what was looked for. */
const differs = (faulty: unknown, sound: unknown): boolean => !isDeepStrictEqual(faulty, sound)

export const operations: Readonly<Record<string, Operation>> = {
  'open and close': { perform: (backend) => openKvm(backend).close(), samples: 100 },
  'a VM’s life': { perform: liveAndDie, samples: 200 },
  probe: {
    perform: (backend) => {
      using kvm = openKvm(backend)
      return probe(kvm, { now })
    },
    samples: 60,
  },
  'capture of a fresh VM': {
    perform: (backend) => {
      using kvm = openKvm(backend)
      return withoutTime(
        captureHost(kvm, { now, vcpus: 2, psci: '1.0', elect: { std: [], vendorHyp: ['features'] } }),
      )
    },
    samples: 150,
  },
  'capture of a running VM': {
    perform: (backend) => {
      using kvm = openKvm(backend)
      using vm = kvm.createVm()
      vm.createVcpu(0).freeze()
      return withoutTime(capture(kvm, vm, { now }))
    },
    samples: 100,
  },
  restore: {
    perform: (backend) => {
      using kvm = openKvm(backend)
      const { vm, outcomes } = restore(kvm, state)
      vm.close()
      return outcomes
    },
    samples: 100,
  },
  apply: {
    perform: (backend) => {
      using kvm = openKvm(backend)
      const { vm, ...applied } = apply(kvm, agreed)
      vm.close()
      return applied
    },
    samples: 100,
  },
  'restore of a VM with devices': {
    perform: (backend) => {
      using kvm = openKvm(backend)
      using memory = kvm.createMemory(0x1_0000)
      const prepare = (vm: Vm): void => vm.mapMemory(3, { address: 0x4000_0000n, memory })
      const { vm, outcomes } = restore(kvm, rich, { prepare })
      vm.close()
      return outcomes
    },
    samples: 24,
    host: RICH_HOST,
  },
  'capture of a VM with devices': {
    perform: (backend) => {
      using kvm = openKvm(backend)
      using memory = kvm.createMemory(0x1_0000)
      using vm = vmWithDevices(kvm, memory)
      return withoutTime(capture(kvm, vm, { now }))
    },
    samples: 24,
    host: RICH_HOST,
  },
  'a verdict on this host': { perform: judge, samples: 24, tells: tellsUnknown },
  ...Object.fromEntries(psciVersions.map((psci) => [`census of PSCI ${psci}`, censusOf(psci)])),
  events: { perform: exchangeEvents, samples: 80 },
  'a machine': { perform: bootAndOff, samples: 16 },
  'a replayed trace': { perform: replayed, samples: 20, tells: differs },
  // The answer to a call at a null address may be EFAULT, and some calls of a player decide no answer.
  fuzzing: { perform: fuzzed, samples: 8, tells: () => true },
  'a recorded trace': {
    perform: async (backend) => {
      const lines: string[] = []
      const result = await liveAndDie(
        recordingBackend(backend, (entry) => lines.push(JSON.stringify(entry.call.op))),
      )
      return [result, lines]
    },
    samples: 120,
  },
}

/** Each check of the conformance suite by itself: a failure in one says nothing about the others. */
export const checks: Readonly<Record<string, Operation>> = Object.fromEntries(
  checkGroups.flatMap(({ title, checks: ofGroup }) =>
    ofGroup.map(({ name }): [string, Operation] => {
      const only = `${title}\n${name}`
      return [`${title}: ${name}`, { perform: (backend) => verdicts(backend, { only }), samples: 1 }]
    }),
  ),
)

/** Whether a result is right although a call failed: what it would have been, or one of checks with a failing one. */
export function tellsOfFault(faulty: unknown, sound: unknown): boolean {
  return isDeepStrictEqual(faulty, sound) || failingChecks(faulty) > failingChecks(sound)
}

function failingChecks(results: unknown): number {
  if (!Array.isArray(results)) return 0
  return results.filter((result: { verdict?: string }) => result.verdict === 'fails').length
}
