/**
 * Random calls of every public method with random arguments, on a simulated host. None crashes the process or keeps it, and what they
 * throw is a TypeError, a RangeError, a KvmError, or the SimulatorError for what the simulator cannot do.
 */
import assert from 'node:assert/strict'
import * as fc from 'fast-check'
import { it } from 'vitest'
import { simulator } from '../../lib/hosts/index.js'
import { KvmError, openKvm } from '../../lib/kvm/index.js'
import { SimulatorError } from '../../lib/simulator/index.js'
import { handles, type Handles } from './handles.js'

const backend = simulator('linux-6.18-cortex-a57')

/** Numbers, bigints and names that mean something to some method, beside those that mean nothing to any. */
const value: fc.Arbitrary<unknown> = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.constantFrom(0, 1, 2, 3, 4, 7, 24, 40, 500, 0x1000, 0x1_0000, 0x8400_0000, 2 ** 32),
  },
  {
    weight: 3,
    arbitrary: fc.constantFrom(0n, 1n, 2n, 5n, 0x8000_0000n, 0x6030_0000_0010_0040n, 1n << 64n, -1n),
  },
  {
    weight: 3,
    arbitrary: fc.constantFrom(
      'x0',
      'pc',
      'KVM_REG_ARM_STD_BMAP',
      'ID_AA64PFR0_EL1',
      'KVM_CAP_ARM_SVE',
      'KVM_DEV_TYPE_ARM_VGIC_V3',
      'psci-0.2',
      'sve',
      'deny',
      'smc',
      'runnable',
      'stopped',
      'kernel',
      'toString',
      '__proto__',
    ),
  },
  fc.constantFrom(undefined, null, NaN, Infinity, -Infinity, -1, 0.5, true, false, '', Symbol('s')),
  fc.integer({ min: 0, max: 0xffff_ffff }),
  fc.bigInt({ min: -1n, max: 1n << 65n }),
  fc.uint8Array({ maxLength: 70 }),
  fc.bigUint64Array({ maxLength: 4 }),
  fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }).map((id) => BigUint64Array.of(id, 0x6030_0000_0010_0000n)),
  fc.constantFrom(
    new Float64Array(2),
    new ArrayBuffer(8),
    new Date(0),
    () => 1,
    new Map(),
    Object.create(null),
  ),
)

const someKey = fc.constantFrom(
  'ipaSize',
  'protected',
  'ordering',
  'features',
  'target',
  'init',
  'timeout',
  'conduit',
  'base',
  'count',
  'action',
  'address',
  'memory',
  'version',
  'distributor',
  'redistributors',
  'its',
  'offset',
  'size',
  'readonly',
  'logDirtyPages',
  'std',
  'stdHyp',
  'vendorHyp',
  'x',
)

const argument = (memory: unknown): fc.Arbitrary<unknown> =>
  fc.oneof(
    { weight: 4, arbitrary: value },
    fc.array(value, { maxLength: 8 }),
    fc.dictionary(someKey, fc.oneof(value, fc.array(value, { maxLength: 3 }), fc.constant(memory)), {
      maxKeys: 6,
    }),
    fc.record({ address: value, memory: fc.constant(memory) }),
    fc.record({ base: value, count: value, action: fc.constantFrom('deny', 'forward', 'handle') }),
    fc.constant(memory),
  )

type Call = (handles: Handles, ...args: never[]) => unknown

const calls: Readonly<Record<string, Call>> = {
  openKvm: (_, ...args) => (openKvm as (...args: unknown[]) => { close(): void })(...args).close(),
  'openKvm with options': (_, options) => openKvm(backend, options).close(),
  simulator: (_, host) => simulator(host),
  'kvm.checkExtension': ({ kvm }, ...args: [never]) => kvm.checkExtension(...args),
  'kvm.vcpuMmapSize': ({ kvm }) => kvm.vcpuMmapSize,
  'kvm.createVm': ({ kvm }, ...args: [never]) => kvm.createVm(...args).close(),
  'kvm.createMemory': ({ kvm }, ...args: [never]) => kvm.createMemory(...args).close(),
  'vm.createVcpu': ({ vm }, ...args: [never, never]) => vm.createVcpu(...args),
  'vm.preferredTarget': ({ vm }) => vm.preferredTarget(),
  'vm.checkExtension': ({ vm }, ...args: [never]) => vm.checkExtension(...args),
  'vm.enableCapability': ({ vm }, ...args: [never, ...never[]]) => vm.enableCapability(...args),
  'vm.filterCalls': ({ vm }, ...args: [never]) => vm.filterCalls(...args),
  'vm.getDirtyLog': ({ vm }, ...args: [never]) => vm.getDirtyLog(...args),
  'vm.clearDirtyLog': ({ vm }, ...args: [never, never, never]) => vm.clearDirtyLog(...args),
  'vm.mmio.constant': ({ vm }, ...args: [never, never, never]) => vm.mmio.constant(...args).close(),
  'vm.mmio.posted': ({ vm }, ...args: [never, never, never]) => vm.mmio.posted(...args).close(),
  'vm.createGic': ({ vm }, ...args: [never]) => vm.createGic(...args),
  'vm.memory.has': ({ vm }, ...args: [never, never]) => vm.memory.has(...args),
  'vm.memory.read': ({ vm }, ...args: [never, never]) => vm.memory.read(...args),
  'vm.memory.write': ({ vm }, ...args: [never, never]) => vm.memory.write(...args),
  'vm.memory.view': ({ vm }, ...args: [never, never]) => vm.memory.view(...args),
  'vm.setCounterOffset': ({ vm }, ...args: [never]) => vm.setCounterOffset(...args),
  'vcpu.timers.irq': ({ vcpu }, ...args: [never]) => vcpu.timers.irq(...args),
  'vcpu.timers.setIrq': ({ vcpu }, ...args: [never, never]) => vcpu.timers.setIrq(...args),
  'vcpu.pmu.irq': ({ vcpu }) => vcpu.pmu.irq,
  'vcpu.pmu.setIrq': ({ vcpu }, ...args: [never]) => vcpu.pmu.setIrq(...args),
  'vcpu.pmu.filter': ({ vcpu }, ...args: [never]) => vcpu.pmu.filter(...args),
  'vcpu.pmu.setPmu': ({ vcpu }, ...args: [never]) => vcpu.pmu.setPmu(...args),
  'vcpu.pmu.setCounters': ({ vcpu }, ...args: [never]) => vcpu.pmu.setCounters(...args),
  'vcpu.pmu.init': ({ vcpu }) => vcpu.pmu.init(),
  'vcpu.stolenTime.address': ({ vcpu }) => vcpu.stolenTime.address,
  'vcpu.stolenTime.setAddress': ({ vcpu }, ...args: [never]) => vcpu.stolenTime.setAddress(...args),
  'vm.setIrq': ({ vm }, ...args: [never, never]) => vm.setIrq(...args),
  'vcpu.setIrq': ({ vcpu }, ...args: [never, never]) => vcpu.setIrq(...args),
  'vm.signalMsi': ({ vm }, ...args: [never]) => vm.signalMsi(...args),
  'vm.setGsiRouting': ({ vm }, ...args: [never]) => vm.setGsiRouting(...args),
  'kvm.createEvent': ({ kvm }) => kvm.createEvent().close(),
  'event.signal': ({ event }, ...args: [never]) => event.signal(...args),
  'event.take': ({ event }) => event.take(),
  'event.close': ({ event }) => event.close(),
  'vm.mmio.doorbell': ({ vm, event }, address, size, match) =>
    vm.mmio.doorbell(address, size, event, match).close(),
  'vm.connectIrq': ({ vm }, ...args: [never, never, never]) => vm.connectIrq(...args).close(),
  'vm.mmio.coalesced': ({ vm }, ...args: [never, never, never]) => vm.mmio.coalesced(...args).close(),
  'vm.enableDirtyRing': ({ vm }, ...args: [never, never]) => vm.enableDirtyRing(...args),
  'vm.resetDirtyRings': ({ vm }) => vm.resetDirtyRings(),
  'vcpu.takeDirtyPages': ({ vcpu }) => vcpu.takeDirtyPages(),
  'vm.readTags': ({ vm }, ...args: [never, never]) => vm.readTags(...args),
  'vm.writeTags': ({ vm }, ...args: [never, never]) => vm.writeTags(...args),
  'vm.openStats': ({ vm }) => vm.openStats().close(),
  'vcpu.openStats': ({ vcpu }) => vcpu.openStats().read(),
  'vm.writableMasks': ({ vm }) => vm.writableMasks(),
  'vm.mapMemory': ({ vm }, ...args: [never, never]) => vm.mapMemory(...args),
  'vm.unmapMemory': ({ vm }, ...args: [never]) => vm.unmapMemory(...args),
  'vm.createDevice': ({ vm }, ...args: [never]) => vm.createDevice(...args),
  'vm.services.supported': ({ vm }) => vm.services.supported,
  'vm.services.elected': ({ vm }) => vm.services.elected,
  'vm.services.elect': ({ vm }, ...args: [never]) => vm.services.elect(...args),
  'vcpu.init': ({ vcpu }, ...args: [never]) => vcpu.init(...args),
  'vcpu.finalize': ({ vcpu }) => vcpu.finalize(),
  'vcpu.runSync': ({ vcpu }, options) => vcpu.runSync(withShortTimeout(options)),
  'vcpu.hypercall': ({ vcpu }, id, args, options) => vcpu.hypercall(id, args, withShortTimeout(options)),
  'vcpu.run': async ({ vcpu }) => {
    const run = vcpu.run()
    vcpu.kick()
    await run
  },
  'vcpu.kick': ({ vcpu }) => vcpu.kick(),
  'vcpu.freeze': ({ vcpu }) => vcpu.freeze(),
  'vcpu.respond': ({ vcpu }, ...args: [never]) => vcpu.respond(...args),
  'vcpu.idle': ({ vcpu }) => vcpu.idle,
  'vcpu.mpState': ({ vcpu }) => vcpu.mpState,
  'vcpu.mpState =': ({ vcpu }, state) => (vcpu.mpState = state),
  'vcpu.getEvents': ({ vcpu }) => vcpu.getEvents(),
  'vcpu.setDebug': ({ vcpu }, ...args: [never]) => vcpu.setDebug(...args),
  'vcpu.setEvents': ({ vcpu }, ...args: [never]) => vcpu.setEvents(...args),
  'vcpu.registers.get': ({ vcpu }, ...args: [never]) => vcpu.registers.get(...args),
  'vcpu.registers.set': ({ vcpu }, ...args: [never, never]) => vcpu.registers.set(...args),
  'vcpu.registers.list': ({ vcpu }) => vcpu.registers.list(),
  'vcpu.registers.read': ({ vcpu }, ...args: [never]) => vcpu.registers.read(...args),
  'vcpu.registers.write': ({ vcpu }, ...args: [never, never]) => vcpu.registers.write(...args),
  'memory.read': ({ memory }, ...args: [never, never]) => memory.read(...args),
  'memory.write': ({ memory }, ...args: [never, never]) => memory.write(...args),
  'vm.close': ({ vm }) => vm.close(),
  'vcpu.close': ({ vcpu }) => vcpu.close(),
  'gic.close': ({ gic }) => gic.close(),
  'memory.close': ({ memory }) => memory.close(),
  'kvm.close': ({ kvm }) => kvm.close(),
  ...Object.fromEntries(
    (['vm', 'vcpu', 'gic'] as const).flatMap((owner) =>
      (['has', 'get', 'set'] as const).map((method) => [
        `${owner}.attributes.${method}`,
        (all: Handles, ...args: unknown[]) => {
          const { attributes } = all[owner]
          return (attributes[method] as (...args: unknown[]) => unknown).apply(attributes, args)
        },
      ]),
    ),
  ),
}

/** A run without a limit is allowed to last; wrong timeouts stay what they are. */
function withShortTimeout(options: unknown): never {
  if (typeof options !== 'object' || options === null) return (options ?? { timeout: 1 }) as never
  const { timeout } = options as { timeout?: unknown }
  const isLong = timeout === undefined || timeout === 0 || (typeof timeout === 'number' && timeout > 1)
  return (isLong ? { ...options, timeout: 1 } : options) as never
}

function isExpected(error: unknown): boolean {
  return (
    error instanceof TypeError ||
    error instanceof RangeError ||
    error instanceof KvmError ||
    error instanceof SimulatorError
  )
}

/** What V8 says where a program, not its caller, is wrong. */
const oversight =
  /undefined \(reading|is not a function|is not iterable|Cannot (mix|convert|read|destructure)|not defined/

it('Any method with any arguments throws a TypeError, a RangeError or a KvmError, or nothing', async () => {
  const call = fc.tuple(fc.constantFrom(...Object.keys(calls)), fc.array(argument(MEMORY), { maxLength: 4 }))
  await fc.assert(
    fc.asyncProperty(fc.array(call, { minLength: 1, maxLength: 12 }), async (sequence) => {
      const all = handles(backend)
      for (const [name, given] of sequence) {
        const args = given.map((each) => substituted(each, all.memory)) as never[]
        try {
          await calls[name]!(all, ...args)
        } catch (error) {
          assert.ok(isExpected(error), `${name}: ${String(error)}`)
          const { message } = error as Error
          assert.ok(message.length > 0 && message.length < 1000, `${name}: ${message.length} characters`)
          assert.doesNotMatch(message, oversight, name)
        }
      }
      all.vm.close()
      all.memory.close()
      all.kvm.close()
    }),
    { numRuns: 2000, interruptAfterTimeLimit: 20_000 },
  )
}, 60_000)

/** Stands for the guest memory of the run, in what is made before it. */
const MEMORY = Symbol('memory')

function substituted(each: unknown, memory: unknown): unknown {
  if (each === MEMORY) return memory
  if (typeof each !== 'object' || each === null || Object.getPrototypeOf(each) !== Object.prototype)
    return each
  return Object.fromEntries(
    Object.entries(each).map(([key, inner]) => [key, inner === MEMORY ? memory : inner]),
  )
}
