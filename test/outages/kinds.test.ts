/** Faults that were found by failing every place, one test for each kind. */
import assert from 'node:assert/strict'
import { describe, test } from 'vitest'
import { conformance } from '../../lib/conformance/index.js'
import { simulator } from '../../lib/hosts/index.js'
import { functionIds } from '../../lib/hypercalls/index.js'
import { openKvm, type Vcpu } from '../../lib/kvm/index.js'
import { probe } from '../../lib/probe/probe.js'
import type { ErrnoName } from '../../lib/uapi.js'
import { FailingBackend } from './failing-backend.js'
import { checks, HOST, operations } from './operations.js'

/** A backend whose `nth` call of a method, from 0, fails in `perform`. */
function failing(
  perform: (backend: FailingBackend) => unknown,
  method: string,
  errno: ErrnoName,
  nth = 0,
): FailingBackend {
  const sound = new FailingBackend(simulator(HOST))
  perform(sound)
  const places = sound.methods.flatMap((called, place) => (called === method ? [place] : []))
  assert.ok(places.length > nth, `${method} is called ${places.length} times`)
  return new FailingBackend(simulator(HOST), places[nth], errno)
}

/** Fails unless an accident in this place ends what is performed, and nothing stays open. */
function assertEnds(perform: (backend: FailingBackend) => unknown, method: string, nth: number): void {
  const backend = failing(perform, method, 'ENOMEM', nth)
  assert.throws(() => perform(backend), { name: 'KvmError', code: 'ENOMEM' })
  assert.deepEqual(backend.left, [])
}

function withVcpu(backend: FailingBackend, use: (vcpu: Vcpu) => void): void {
  using kvm = openKvm(backend)
  using vm = kvm.createVm()
  use(vm.createVcpu(0))
}

const call = (vcpu: Vcpu): void => void vcpu.hypercall(functionIds.SMCCC_VERSION)

describe('a guest’s call', () => {
  test('is not made where the stub could not be written', () => {
    const backend = failing((sound) => withVcpu(sound, call), 'write', 'EFAULT')
    withVcpu(backend, (vcpu) => assert.throws(() => call(vcpu), { name: 'KvmError', code: 'EFAULT' }))
    assert.deepEqual(backend.left, [])
  })

  for (const [method, nth, what] of [
    ['getRegs', 0, 'read before it'],
    ['setRegs', 0, 'set for it'],
    ['getRegs', 1, 'read after it'],
    ['setRegs', 1, 'restored'],
  ] as const) {
    test(`fails where registers cannot be ${what}`, () => {
      const backend = failing((sound) => withVcpu(sound, call), method, 'ENOMEM', nth)
      withVcpu(backend, (vcpu) => {
        vcpu.registers.set('x0', 7n)
        assert.throws(() => call(vcpu), { name: 'KvmError', code: 'ENOMEM' })
        assert.equal(vcpu.registers.get('x0'), 7n)
      })
    })
  }

  test('fails where the guest’s store cannot be finished', () => {
    const backend = failing((sound) => withVcpu(sound, call), 'runSync', 'ENOMEM', 1)
    withVcpu(backend, (vcpu) => assert.throws(() => call(vcpu), { name: 'KvmError', code: 'ENOMEM' }))
  })
})

function supported(backend: FailingBackend): unknown {
  using kvm = openKvm(backend)
  using vm = kvm.createVm()
  return vm.services.supported
}

function probed(backend: FailingBackend): unknown {
  using kvm = openKvm(backend)
  return probe(kvm)
}

function bitmapChecks(backend: FailingBackend): ReturnType<typeof conformance> {
  return conformance(backend, { only: 'STD_HYP_BMAP' })
}

describe('an accident', () => {
  test('makes no service unsupported, and is forgotten', () => {
    const backend = failing(supported, 'setRegs', 'ENOMEM')
    using kvm = openKvm(backend)
    using vm = kvm.createVm()
    assert.throws(() => vm.services.supported, { name: 'KvmError', code: 'ENOMEM' })
    using sound = openKvm(simulator(HOST))
    using other = sound.createVm()
    assert.deepEqual(vm.services.supported, other.services.supported)
  })

  test('is no trait of a host', () => {
    for (const [method, nth] of [
      ['setOneReg', 100],
      ['setRegs', 3],
      ['init', 5],
      ['createVcpu', 3],
    ] as const) {
      assertEnds(probed, method, nth)
    }
  })

  test('fails a conformance check, and makes none inapplicable', () => {
    const before = bitmapChecks(new FailingBackend(simulator(HOST)))
    const after = bitmapChecks(failing(bitmapChecks, 'createVm', 'ENOMEM', 4))
    assert.equal(after.length, before.length)
    const changed = after.filter(({ verdict }, index) => verdict !== before[index]!.verdict)
    assert.deepEqual(
      changed.map(({ verdict, did }) => [verdict, did.split(':')[0]]),
      [['fails', 'ENOMEM']],
    )
  })

  test('is no finding of a verdict', () => {
    const judged = operations['a verdict on this host']!.perform
    for (const [method, nth] of [
      ['createDevice', 0],
      ['createVm', 0],
      ['init', 0],
      ['setOneReg', 50],
      ['getOneReg', 5],
    ] as const) {
      assertEnds(judged, method, nth)
    }
  })

  test('in the memory of the stub guest leaves none of it open', () => {
    const called = checks['SMCCC filter: A denied call is NOT_SUPPORTED, by hvc and by smc']!.perform
    const backend = failing(called, 'setUserMemoryRegion', 'ENOMEM')
    called(backend)
    assert.deepEqual(backend.left, [])
  })
})
