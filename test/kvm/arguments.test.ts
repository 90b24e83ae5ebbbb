/**
 * Arguments that KVM cannot get at all: every public method refuses them with a TypeError or a RangeError, before it calls KVM, by the
 * name that the caller used.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'vitest'
import { conformance } from '../../lib/conformance/index.js'
import { apply } from '../../lib/fleet/baseline/apply.js'
import { simulator } from '../../lib/hosts/index.js'
import { openKvm } from '../../lib/kvm/index.js'
import { attemptRestore } from '../../lib/migration/attempt.js'
import { captureHost } from '../../lib/migration/capture.js'
import { factsOfKvm } from '../../lib/migration/vmm/facts.js'
import { census } from '../../lib/probe/census.js'
import { probe } from '../../lib/probe/probe.js'
import { handles, type Handles } from './handles.js'

/** Values of every type but the one in the key. */
const others = {
  number: ['5', 5n, true, null, [], {}, Symbol('5'), () => 5],
  bigint: ['5', 5, true, null, [], {}, Symbol('5'), () => 5],
  text: [5, 5n, true, null, [], {}, Symbol('5'), () => 5],
  flag: ['true', 1, 1n, null, [], {}],
  bytes: ['abc', 5, 5n, null, [1, 2], {}, new Uint16Array(64), new ArrayBuffer(64)],
  ids: ['abc', 5, null, [1n], {}, new Uint8Array(64)],
  list: ['sve', 5, null, {}],
  object: ['abc', 5, 5n, true, null, [], () => 5],
} as const

const outside = {
  32: [-1, 0.5, NaN, Infinity, 2 ** 32],
  size: [-1, 0.5, NaN, Infinity, 2 ** 53],
  milliseconds: [-1, NaN, -Infinity],
  64: [-1n, 1n << 64n],
} as const

const unknownNames = ['', 'toString', '__proto__', 'constructor', 'psci-0.3', '\u001b[31m']

type Use = (handles: Handles, value: never) => unknown

/** Each argument of each method: its name in the message, the values of wrong types and those out of range. */
const uses: readonly [name: string, use: Use, types: readonly unknown[], ranges?: readonly unknown[]][] = [
  ['options', ({ backend }, v) => openKvm(backend, v), others.object],
  ['ordering', ({ backend }, v) => openKvm(backend, { ordering: v }), others.text, unknownNames],
  [
    'capability',
    ({ kvm }, v) => kvm.checkExtension(v),
    [null, 5n, {}, []],
    [...outside[32], ...unknownNames],
  ],
  ['options', ({ kvm }, v) => kvm.createVm(v), others.object],
  ['ipaSize', ({ kvm }, v) => kvm.createVm({ ipaSize: v }), others.number, [...outside[32], 256]],
  ['size', ({ kvm }, v) => kvm.createMemory(v), others.number, outside.size],
  ['id', ({ vm }, v) => vm.createVcpu(v), others.number, outside[32]],
  ['options', ({ vm }, v) => vm.createVcpu(7, v), others.object],
  ['init', ({ vm }, v) => vm.createVcpu(7, { init: v }), others.flag],
  ['features', ({ vm }, v) => vm.createVcpu(7, { features: v }), others.list],
  ['features[0]', ({ vm }, v) => vm.createVcpu(7, { features: [v] }), others.text, unknownNames],
  ['features[1]', ({ vcpu }, v) => vcpu.init({ features: ['psci-0.2', v] }), others.text, unknownNames],
  ['target', ({ vcpu }, v) => vcpu.init({ target: v }), others.number, outside[32]],
  ['capability', ({ vm }, v) => vm.checkExtension(v), [null, 5n, {}, []], [...outside[32], ...unknownNames]],
  [
    'capability',
    ({ vm }, v) => vm.enableCapability(v),
    [null, 5n, {}, []],
    [...outside[32], ...unknownNames],
  ],
  ['args[1]', ({ vm }, v) => vm.enableCapability(1, 1n, v), others.bigint, outside[64]],
  ['calls', ({ vm }, v) => vm.filterCalls(v), others.object],
  ['base', ({ vm }, v) => vm.filterCalls({ base: v, count: 1, action: 'deny' }), others.number, outside[32]],
  ['count', ({ vm }, v) => vm.filterCalls({ base: 1, count: v, action: 'deny' }), others.number, outside[32]],
  ['action', ({ vm }, v) => vm.filterCalls({ base: 1, count: 1, action: v }), others.text, unknownNames],
  ['slot', ({ vm, memory }, v) => vm.mapMemory(v, { address: 0n, memory }), others.number, outside[32]],
  ['mapping', ({ vm }, v) => vm.mapMemory(7, v), others.object],
  ['address', ({ vm, memory }, v) => vm.mapMemory(7, { address: v, memory }), others.bigint, outside[64]],
  [
    'memory',
    ({ vm }, v) => vm.mapMemory(7, { address: 0n, memory: v }),
    ['abc', null, {}, new Uint8Array(1)],
  ],
  [
    'offset',
    ({ vm, memory }, v) => vm.mapMemory(7, { address: 0n, memory, offset: v }),
    others.number,
    [...outside.size, 0x10001],
  ],
  [
    'size',
    ({ vm, memory }, v) => vm.mapMemory(7, { address: 0n, memory, size: v }),
    others.number,
    [...outside.size, 0, 0x10001],
  ],
  ['readonly', ({ vm, memory }, v) => vm.mapMemory(7, { address: 0n, memory, readonly: v }), others.flag],
  [
    'logDirtyPages',
    ({ vm, memory }, v) => vm.mapMemory(7, { address: 0n, memory, logDirtyPages: v }),
    others.flag,
  ],
  ['slot', ({ vm }, v) => vm.unmapMemory(v), others.number, outside[32]],
  ['type', ({ vm }, v) => vm.createDevice(v), [null, 5n, {}, []], [...outside[32], ...unknownNames]],
  ['offset', ({ memory }, v) => memory.read(v, 1), others.number, outside.size],
  ['length', ({ memory }, v) => memory.read(0, v), others.number, outside.size],
  ['offset', ({ memory }, v) => memory.write(v, new Uint8Array(1)), others.number, outside.size],
  ['bytes', ({ memory }, v) => memory.write(0, v), others.bytes],
  ['group', ({ gic }, v) => gic.attributes.has(v, 0n), others.number, outside[32]],
  ['attribute', ({ vm }, v) => vm.attributes.has(0, v), others.bigint, outside[64]],
  ['group', ({ vcpu }, v) => vcpu.attributes.get(v, 0n, 4), others.number, outside[32]],
  ['attribute', ({ vcpu }, v) => vcpu.attributes.get(1, v, 4), others.bigint, outside[64]],
  ['size', ({ vcpu }, v) => vcpu.attributes.get(1, 0n, v), others.number, [...outside.size, 0, 3, 2 ** 32]],
  ['group', ({ gic }, v) => gic.attributes.set(v, 0n), others.number, outside[32]],
  ['attribute', ({ gic }, v) => gic.attributes.set(0, v), others.bigint, outside[64]],
  [
    'data',
    ({ gic }, v) => gic.attributes.set(0, 2n, v),
    others.bytes,
    [new Uint8Array(0), new Uint8Array(4), new Uint8Array(7)],
  ],
  ['data', ({ vcpu }, v) => vcpu.attributes.set(1, 0n, v), others.bytes, [new Uint8Array(3)]],
  ['data', ({ vm }, v) => vm.attributes.set(0, 0n, v), others.bytes, [new Uint8Array(23)]],
  ['election', ({ vm }, v) => vm.services.elect(v), others.object],
  ['std', ({ vm }, v) => vm.services.elect({ std: v }), others.list],
  ['std[0]', ({ vm }, v) => vm.services.elect({ std: [v] }), others.text],
  ['register', ({ vcpu }, v) => vcpu.registers.get(v), [5, null, {}, [], true]],
  ['register', ({ vcpu }, v) => vcpu.registers.set(v, 5n), [5, null, {}, [], true]],
  ['value', ({ vcpu }, v) => vcpu.registers.set('pc', v), others.bigint, outside[64]],
  ['value', ({ vcpu }, v) => vcpu.registers.set('fpcr', v), others.bigint, [-1n, 1n << 32n]],
  ['ids', ({ vcpu }, v) => vcpu.registers.read(v), others.ids],
  ['ids', ({ vcpu }, v) => vcpu.registers.write(v, new BigUint64Array(1)), others.ids],
  [
    'values',
    ({ vcpu }, v) => vcpu.registers.write(new BigUint64Array(2), v),
    others.ids,
    [new BigUint64Array(1)],
  ],
  ['options', ({ vcpu }, v) => vcpu.runSync(v), others.object],
  ['timeout', ({ vcpu }, v) => vcpu.runSync({ timeout: v }), others.number, outside.milliseconds],
  [
    'functionId',
    ({ vcpu }, v) => vcpu.hypercall(v),
    ['PSCI_VERSION', null, [], {}],
    [...outside[32], ...outside[64]],
  ],
  ['args', ({ vcpu }, v) => vcpu.hypercall(1, v), others.list, [[0n, 0n, 0n, 0n, 0n, 0n, 0n]]],
  ['args[1]', ({ vcpu }, v) => vcpu.hypercall(1, [0n, v]), others.bigint, outside[64]],
  ['options', ({ vcpu }, v) => vcpu.hypercall(1, [], v), others.object],
  ['conduit', ({ vcpu }, v) => vcpu.hypercall(1, [], { conduit: v }), others.text, unknownNames],
  ['timeout', ({ vcpu }, v) => vcpu.hypercall(1, [], { timeout: v }), others.number, outside.milliseconds],
  ['value', ({ vcpu }, v) => vcpu.respond(v), others.bigint, outside[64]],
  ['mpState', ({ vcpu }, v) => (vcpu.mpState = v), others.text, unknownNames],
  ['events', ({ vcpu }, v) => vcpu.setEvents(v), others.bytes, [new Uint8Array(63)]],
]

function isRefusal(error: unknown, type: typeof TypeError | typeof RangeError, name: string): boolean {
  return error instanceof type && error.message.startsWith(`${name} must be `) && 'code' in error
}

describe('An argument', () => {
  for (const [index, [name, use, types, ranges = []]] of uses.entries()) {
    const call = /=> ?(?:\()?(.*?)\)?$/s.exec(String(use))?.[1] ?? String(index)
    it(`is refused by its name: ${call}`, () => {
      const all = handles()
      for (const value of types) {
        assert.throws(
          () => use(all, value as never),
          (error) => isRefusal(error, TypeError, name),
          `${typeof value} ${JSON.stringify(value, (_, each: unknown) => (typeof each === 'bigint' ? `${each}n` : each))}`,
        )
      }
      for (const value of ranges) {
        assert.throws(
          () => use(all, value as never),
          (error) => isRefusal(error, RangeError, name),
          String(value),
        )
      }
      assert.equal(all.vm.vcpus.length, 1, 'nothing was created on the way')
      assert.equal(all.vm.started, false)
    })
  }

  it('that is a misspelt option is refused by its name', () => {
    const { backend, kvm, vm, vcpu, memory } = handles()
    const misspelt: readonly [call: () => unknown, key: string, meant: string][] = [
      [() => openKvm(backend, { order: 'kernel' } as never), 'order', 'ordering'],
      [() => kvm.createVm({ ipasize: 40 } as never), 'ipasize', 'ipaSize'],
      [() => vm.createVcpu(1, { feature: ['sve'] } as never), 'feature', 'features'],
      [() => vcpu.init({ init: false } as never), 'init', 'features'],
      [() => vcpu.runSync({ timeOut: 5 } as never), 'timeOut', 'timeout'],
      [() => vcpu.hypercall(1, [], { conduits: 'smc' } as never), 'conduits', 'conduit'],
      [() => vm.mapMemory(7, { addres: 0n, memory } as never), 'addres', 'address'],
      [() => vm.filterCalls({ base: 1, nr: 1, action: 'deny' } as never), 'nr', 'count'],
    ]
    for (const [call, key, meant] of misspelt) {
      assert.throws(call, (error) => {
        assert.ok(error instanceof TypeError)
        assert.ok(error.message.includes(`it has "${key}"`), error.message)
        assert.ok(error.message.includes(meant), error.message)
        return true
      })
    }
  })

  it('absent stands for its default', () => {
    const { backend, kvm, vm } = handles()
    openKvm(backend, { ordering: undefined } as never).close()
    kvm.createVm({ ipaSize: undefined } as never).close()
    assert.deepEqual(vm.createVcpu(1, { features: undefined, init: undefined } as never).features, [
      'psci-0.2',
    ])
  })
})

for (const [what, backend, message] of [
  ['a name', 'linux-6.12-max', /use openKvm\(simulator\('linux-6\.12-max'\)\), not "linux-6\.12-max"/],
  [
    'a name with control characters',
    '\u001b[31m',
    /use openKvm\(simulator\('[\w.-]+'\)\), not "\\u001b\[31m"/,
  ],
  ['a report', { registers: [] }, /use openKvm\(simulator\(report\)\)/],
  ['options', { ordering: 'kernel' }, /use openKvm\(undefined, \{ ordering \}\)/],
  ['null', null, /not null/],
  ['a function', simulator, /not a function/],
] as const) {
  it(`openKvm names the call to make instead when it gets ${what}`, () => {
    assert.throws(() => openKvm(backend as never), {
      name: 'TypeError',
      code: 'ERR_INVALID_ARG_TYPE',
      message,
    })
  })
}

for (const [what, host, message] of [
  ['a number', 5, /host must be .* not 5/],
  ['nothing', undefined, /host must be /],
  ['an empty object', {}, /host must be /],
  ['a list', [], /host must be /],
] as const) {
  it(`simulator refuses ${what}`, () => {
    assert.throws(() => simulator(host as never), { name: 'TypeError', message })
  })
}

it('says what was expected of a value that has the right number but the wrong type', () => {
  const { vcpu } = handles()
  assert.throws(() => vcpu.registers.set('pc', 5 as never), /value must be a bigint such as 5n, not 5/)
  assert.throws(() => vcpu.respond(5 as never), /value must be a bigint such as 5n, not 5/)
  assert.throws(() => vcpu.registers.set('x0', 1n << 64n), /fits the 64 bits of register 0x6030000000100000/)
})

for (const [name, call] of Object.entries<(kvm: never) => unknown>({
  probe,
  census,
  captureHost,
  apply: (kvm) => apply(kvm, {} as never),
  attemptRestore: (kvm) => attemptRestore(kvm, {} as never),
  factsOfKvm,
})) {
  it(`${name} names the handle that it needs`, () => {
    for (const wrong of [undefined, null, 'linux-6.12-max', {}, simulator('linux-6.12-max')]) {
      assert.throws(() => call(wrong as never), {
        name: 'TypeError',
        code: 'ERR_INVALID_ARG_TYPE',
        message: /^kvm must be a Kvm, which openKvm\(backend\) returns, not /,
      })
    }
  })
}

it('conformance names the backend that it needs', () => {
  using kvm = openKvm(simulator('linux-6.12-max'))
  assert.throws(() => conformance(kvm as never), {
    code: 'ERR_INVALID_ARG_TYPE',
    message: /^backend must be a Backend; use openKvm\(/,
  })
})
