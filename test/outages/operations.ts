/** What users do, each as one operation on a backend that may fail in any place. */
import { isDeepStrictEqual } from 'node:util'
import type { Backend } from '../../lib/backend.js'
import { conformance } from '../../lib/conformance/index.js'
import { apply } from '../../lib/fleet/baseline/apply.js'
import { computeBaseline } from '../../lib/fleet/baseline/baseline.js'
import { builtInReport, simulator } from '../../lib/hosts/index.js'
import { openKvm } from '../../lib/kvm/index.js'
import { capture, captureHost } from '../../lib/migration/capture.js'
import type { State } from '../../lib/migration/state.js'
import { restore } from '../../lib/migration/restore.js'
import { census } from '../../lib/probe/census.js'
import { probe } from '../../lib/probe/probe.js'
import { recordingBackend } from '../../lib/trace/index.js'
import { functionIds } from '../../lib/hypercalls/index.js'

export const HOST = 'linux-6.12-neoverse-n1'

export interface Operation {
  /** The result, for a comparison. */
  perform: (backend: Backend) => unknown
  /** Calls tried in a quick test, spread evenly over the operation. */
  samples: number
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
  return conformance(...given).map(({ group, name, verdict, did }) => ({ group, name, verdict, did }))
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
  census: {
    perform: (backend) => {
      using kvm = openKvm(backend)
      return census(kvm, { elect: { std: [] }, psci: '1.1' })
    },
    samples: 12,
  },
  'conformance of the bitmaps': {
    perform: (backend) => verdicts(backend, { only: 'STD_HYP_BMAP' }),
    samples: 100,
  },
  conformance: { perform: (backend) => verdicts(backend), samples: 0 },
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

/** Whether a result is right although a call failed: what it would have been, or one of checks with a failing one. */
export function tellsOfFault(faulty: unknown, sound: unknown): boolean {
  return isDeepStrictEqual(faulty, sound) || failingChecks(faulty) > failingChecks(sound)
}

function failingChecks(results: unknown): number {
  if (!Array.isArray(results)) return 0
  return results.filter((result: { verdict?: string }) => result.verdict === 'fails').length
}
