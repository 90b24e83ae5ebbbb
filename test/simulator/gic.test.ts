/** The registers of a simulated GICv3: reset values, what ignores writes, what a write means, and errnos before and after init. */
import assert from 'node:assert/strict'
import { describe, test } from 'vitest'
import { simulator } from '../../lib/hosts/index.js'
import { type Attributes, KvmError, openKvm, type Vm } from '../../lib/kvm/index.js'
import {
  KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS as INTERFACE,
  KVM_DEV_ARM_VGIC_GRP_CTRL,
  KVM_DEV_ARM_VGIC_GRP_DIST_REGS as DIST,
  KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO as LINES,
  KVM_DEV_ARM_VGIC_GRP_MAINT_IRQ as MAINTENANCE,
  KVM_DEV_ARM_VGIC_GRP_REDIST_REGS as REDIST,
  KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES,
} from '../../lib/uapi.js'

const OLD = 'linux-5.10-neoverse-n1'
const HOST = 'linux-6.12-neoverse-n1'
const NEW = 'linux-7.2-neoverse-n1'

function made(host = HOST, { init = true, vcpus = 2 } = {}): { vm: Vm; gic: Attributes } {
  const vm = openKvm(simulator(host)).createVm()
  for (let id = 0; id < vcpus; id++) vm.createVcpu(id, { features: ['psci-0.2'] })
  const { attributes } = vm.createGic({
    version: 3,
    distributor: 0x800_0000n,
    redistributors: 0x80a_0000n,
    irqs: 96,
    init,
  })
  return { vm, gic: attributes }
}

function outcome(action: () => unknown): unknown {
  try {
    return action()
  } catch (error) {
    assert.ok(error instanceof KvmError)
    return error.code
  }
}

const sizeOf = (group: number): number => (group === INTERFACE ? 8 : 4)

function get(gic: Attributes, group: number, attribute: number | bigint): unknown {
  return outcome(() => {
    const data = gic.get(group, BigInt(attribute), sizeOf(group))
    return data.reduceRight((value, byte) => value * 256 + byte, 0)
  })
}

function set(gic: Attributes, group: number, attribute: number | bigint, value: number | null): unknown {
  return outcome(() => {
    const data = new Uint8Array(BigUint64Array.of(BigInt(value ?? 0)).buffer).subarray(0, sizeOf(group))
    gic.set(group, BigInt(attribute), value === null ? undefined : data)
    return 0
  })
}

const SECOND = 1n << 32n
const NOBODY = 5n << 32n

test('registers show what KVM resets them to', () => {
  const { gic } = made()
  const values: [group: number, attribute: number | bigint, value: number | string][] = [
    [DIST, 0x0, 0x50],
    [DIST, 0x4, 0x48_0002],
    [DIST, 0x8, 0x4b00_343b],
    [DIST, 0xc, 0],
    [DIST, 0x10, 0xffff_ffff],
    [DIST, 0x80, 0],
    [DIST, 0x84, 0xffff_ffff],
    [DIST, 0x104, 0],
    [DIST, 0xc08, 0xaaaa_aaaa],
    [DIST, 0x8c, 0],
    [DIST, 0xffe8, 0x3b],
    [REDIST, 0x0, 0x6],
    [REDIST, 0x4, 0x4b00_043b],
    [REDIST, 0x8, 0],
    [REDIST, SECOND | 0x8n, 0x110],
    [REDIST, SECOND | 0xcn, 1],
    [REDIST, 0x78, 0x580],
    [REDIST, 0x1_0100, 0xffff],
    [REDIST, 0x1_0c00, 0xaaaa_aaaa],
    [REDIST, NOBODY, 'EINVAL'],
    [INTERFACE, 0xc664, 0x8c00],
    [INTERFACE, 0xc665, 7],
    [INTERFACE, 0xc230, 0],
    [INTERFACE, 0xc645, 'EINVAL'],
    [INTERFACE, 0x1234, 'ENOENT'],
    [LINES, 0, 0],
    [LINES, 33, 'EINVAL'],
    [LINES, 0x420, 'EINVAL'],
  ]
  for (const [group, attribute, value] of values) {
    assert.equal(get(gic, group, attribute), value, `${group} ${attribute.toString(16)}`)
  }
})

test('registers exist where KVM has them', () => {
  const { gic } = made()
  const known: [group: number, attribute: number | bigint, exists: boolean][] = [
    [DIST, 0x0, true],
    [DIST, 0x1, false],
    [DIST, 0x50, false],
    [DIST, 0x88, true],
    [DIST, 0x8c, false],
    [DIST, 0x6100, true],
    [DIST, 0x1_0000, false],
    [REDIST, 0x1_0e00, true],
    [REDIST, 0x1_0e04, false],
    [REDIST, NOBODY, false],
    [INTERFACE, 0xc667, true],
    [INTERFACE, 0xc660, false],
    [LINES, 33, true],
    [LINES, 0x420, false],
  ]
  for (const [group, attribute, exists] of known) {
    assert.equal(gic.has(group, BigInt(attribute)), exists, `${group} ${attribute.toString(16)}`)
  }
})

test('writes set, clear, or are ignored', () => {
  const { gic } = made()
  const writes: [group: number, attribute: number, value: number, reads: number | string, at?: number][] = [
    [DIST, 0x0, 0xffff_ffff, 0x52],
    [DIST, 0x4, 0, 0x48_0002],
    [DIST, 0xc, 1, 'EINVAL'],
    [DIST, 0x50, 1, 0],
    [DIST, 0x84, 0x1234_5678, 0x1234_5678],
    [DIST, 0x80, 0xff, 0],
    [DIST, 0x104, 0xff, 0xff],
    [DIST, 0x104, 0x300, 0x3ff],
    [DIST, 0x184, 0xf, 0x3f0],
    [DIST, 0x204, 0x5, 0x5],
    [DIST, 0x204, 0x2, 0x2],
    [DIST, 0x284, 0xff, 0x2, 0x204],
    [DIST, 0x304, 0xf, 0xf],
    [DIST, 0x384, 0x3, 0xc, 0x304],
    [DIST, 0x420, 0xffff_ffff, 0xf8f8_f8f8],
    [DIST, 0xc08, 0xffff_ffff, 0xaaaa_aaaa],
    [DIST, 0x6100, 0xffff_ffff, 0xff_ffff],
    [DIST, 0x6104, 0xffff_ffff, 0],
    [REDIST, 0x70, 0, 0x180],
    [REDIST, 0x70, 0xffff_ffff, 0xffff_ff9f],
    [REDIST, 0x78, 0x800, 0x580],
    [REDIST, 0x1_0c04, 0xffff_ffff, 0],
    [REDIST, 0x8, 0xffff_ffff, 0],
    [REDIST, 0x1_0050, 0xffff_ffff, 0],
    [DIST, 0xffe8, 0, 0x3b],
    [DIST, 0x6000, 0xff, 0],
    [REDIST, 0x1_0300, 0xff_0000, 0xff_0000],
    [INTERFACE, 0xc230, 0x1f8, 0xf8],
    [INTERFACE, 0xc643, 0xff, 7],
    [INTERFACE, 0xc663, 3, 3],
    [INTERFACE, 0xc648, 0x1_2345_6789, 0x2345_6789],
    [INTERFACE, 0xc645, 0, 'EINVAL'],
    [INTERFACE, 0xc643, 0x6, 6],
    [INTERFACE, 0xc665, 0, 'EINVAL'],
    [INTERFACE, 0xc665, 1, 7],
    [INTERFACE, 0xc667, 3, 1],
    [INTERFACE, 0xc664, 0x8c03, 0x8c03],
    [INTERFACE, 0xc663, 2, 7],
    [INTERFACE, 0xc664, 0xcc00, 'EINVAL'],
    [INTERFACE, 0xc664, 0x8500, 'EINVAL'],
    [INTERFACE, 0xc664, 0x9400, 'EINVAL'],
    [LINES, 0, 0xffff_ffff, 0xffff_0000],
    [LINES, 64, 0x5, 0],
    [DIST, 0xc10, 0, 0],
    [LINES, 64, 0x5, 0x5],
    [LINES, 96, 0x5, 0],
  ]
  for (const [group, attribute, value, reads, at = attribute] of writes) {
    const written = set(gic, group, attribute, value)
    const found = written === 0 ? get(gic, group, at) : written
    assert.equal(found, reads, `${group} ${attribute.toString(16)} = ${value.toString(16)}`)
  }
})

test('the revision can be one that the kernel knows', () => {
  const { gic } = made()
  assert.equal(set(gic, DIST, 0x8, 0x4b00_243b), 0)
  assert.deepEqual([get(gic, DIST, 0x8), get(gic, REDIST, 0)], [0x4b00_243b, 0])
  for (const value of [0x4b00_143b, 0x4b00_443b, 0x43b]) assert.equal(set(gic, DIST, 0x8, value), 'EINVAL')
  const old = made(OLD).gic
  assert.deepEqual([set(old, DIST, 0x8, 0x4b00_243b), set(old, DIST, 0x8, 0x4b00_343b)], [0, 'EINVAL'])
  assert.equal(get(old, REDIST, SECOND | 0x8n), 0x100)
})

test('a kernel that keeps its revision accepts any', () => {
  const { gic } = made('linux-6.18-neoverse-n1', { init: false })
  for (const value of [0x4b00_043b, 0x4b00_243b, 0x4b00_443b]) assert.equal(set(gic, DIST, 0x8, value), 0)
  assert.equal(set(gic, DIST, 0x8, 0x4b00_353b), 'EINVAL')
  assert.equal(get(gic, DIST, 0x8), 0x4b00_343b)
})

test('before the initialisation registers are EBUSY, after a check of the vCPU and the value', () => {
  const { gic } = made(HOST, { init: false })
  assert.equal(get(gic, DIST, 0), 'EBUSY')
  assert.equal(set(gic, DIST, 0, null), 'EFAULT')
  assert.equal(set(gic, REDIST, NOBODY, null), 'EINVAL')
  assert.equal(set(gic, INTERFACE, 0xc230, null), 'EBUSY')
  assert.equal(
    outcome(() => gic.set(KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES)),
    'ENXIO',
  )
  const old = made(OLD, { init: false }).gic
  assert.equal(set(old, INTERFACE, NOBODY, null), 'EFAULT')
  assert.equal(
    outcome(() => old.set(KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES)),
    undefined,
  )
  assert.deepEqual([old.has(REDIST, 0xa0n), old.has(REDIST, 0x14n)], [false, true])
  const newer = made(NEW, { init: false }).gic
  assert.equal(get(newer, DIST, 0x8), 0x4b00_343b)
  assert.deepEqual(
    [get(newer, MAINTENANCE, 0), set(newer, MAINTENANCE, 0, 20), set(newer, MAINTENANCE, 0, 40)],
    [0, 0, 'EINVAL'],
  )
  assert.equal(get(newer, MAINTENANCE, 0), 20)
  assert.deepEqual(
    [set(made(NEW).gic, DIST, 0xc, 1), set(made().gic, INTERFACE, 0x1234, null)],
    ['EBUSY', 'EFAULT'],
  )
  assert.equal(set(made(NEW).gic, MAINTENANCE, 0, 20), 'EBUSY')
  const none = openKvm(simulator(HOST)).createVm().createDevice('KVM_DEV_TYPE_ARM_VGIC_V3').attributes
  assert.equal(get(none, DIST, 0), 'EINVAL')
})

describe('lines', () => {
  test('are levels, or latch what is edge-triggered', () => {
    const { vm, gic } = made()
    set(gic, DIST, 0xc08, 0)
    vm.setIrq(40, true)
    assert.deepEqual([get(gic, LINES, 32), get(gic, DIST, 0x204)], [0x100, 0])
    vm.setIrq(40, false)
    set(gic, DIST, 0xc08, 0x2_0000)
    vm.setIrq(40, true)
    vm.setIrq(40, false)
    assert.deepEqual([get(gic, LINES, 32), get(gic, DIST, 0x204)], [0, 0x100])
    vm.vcpus[1]!.setIrq(20, true)
    assert.deepEqual([get(gic, LINES, SECOND), get(gic, LINES, 0)], [0x10_0000, 0])
  })

  test('wake a vCPU that waits, if the guest has enabled them', () => {
    const { vm, gic } = made()
    const vcpu = vm.vcpus[0]!
    set(gic, DIST, 0, 2)
    set(gic, DIST, 0x104, 0x100)
    set(gic, INTERFACE, 0xc230, 0xf0)
    vm.setIrq(40, true)
    // PSCI CPU_SUSPEND waits until an interrupt comes.
    vcpu.hypercall(0x8400_0001)
    // A run loads the binary points into the CPU, which holds none below these.
    assert.deepEqual([get(gic, INTERFACE, 0xc643), get(gic, INTERFACE, 0xc663)], [2, 3])
  })

  test('end the wait of a run in flight', async () => {
    const kvm = openKvm(simulator(HOST))
    const vm = kvm.createVm()
    const memory = kvm.createMemory(0x1_0000)
    // wfi; str x2, [x1]
    memory.write(0, new Uint8Array(Uint32Array.of(0xd503207f, 0xf9000022).buffer))
    vm.mapMemory(0, { address: 0x4000_0000n, memory })
    const vcpu = vm.createVcpu(0, { features: ['psci-0.2'] })
    vcpu.registers.set('pc', 0x4000_0000n)
    vcpu.registers.set('x1', 0x1000_0000n)
    const { attributes: gic } = vm.createGic({
      version: 3,
      distributor: 0x800_0000n,
      redistributors: 0x80a_0000n,
    })
    for (const [group, attribute, value] of [
      [DIST, 0, 2],
      [DIST, 0x104, 0x100],
      [INTERFACE, 0xc230, 0xf0],
    ] as const) {
      assert.equal(set(gic, group, attribute, value), 0)
    }
    const run = vcpu.run()
    assert.equal(set(gic, DIST, 0, 2), 'EBUSY')
    vm.setIrq(41, true)
    vm.setIrq(40, true)
    assert.equal((await run).reason, 'mmio')
    vm.close()
  })

  test('of the timers belong to them once a vCPU has run, and an init resets them', () => {
    const { vm, gic } = made()
    const vcpu = vm.vcpus[0]!
    set(gic, LINES, 0, 0x0800_0000)
    vcpu.hypercall(0x8000_0000)
    vcpu.setIrq(27, true)
    set(gic, REDIST, 0x1_0300, 0x0800_0000)
    assert.equal(get(gic, REDIST, 0x1_0300), 0)
    vcpu.init({ features: ['psci-0.2'] })
    assert.equal(get(gic, LINES, 0), 0)
  })
})
