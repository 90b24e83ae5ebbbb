/** Each check must be able to fail: faults are planted in a kernel until every one has. */
import assert from 'node:assert/strict'
import { describe, test } from 'vitest'
import type { StatsFd, VcpuFd } from '../../lib/backend.js'
import { checkGroups, conformance } from '../../lib/conformance/index.js'
import { decodeRegister, encodeRegister } from '../../lib/registers/index.js'
import type { Report } from '../../lib/report/report.js'
import { builtInReport, simulator } from '../../lib/hosts/index.js'
import { errnos, exitReasons, type ErrnoName } from '../../lib/uapi.js'
import { breakBackend, type Fault, type Faults, wrap } from './broken-kernel.js'
import { withRows } from '../report/rows.js'
import { bitmapsOf } from '../../lib/report/registers.js'

const X0 = encodeRegister('x0')

/** A stub guest's registers are written and read in one crossing; its calls shall go on. */
function isGuestCall(ids: BigUint64Array): boolean {
  return ids[0] === X0
}

function onVcpu(vcpu: Faults<VcpuFd>): Fault {
  return { vcpu }
}

/** Every call of a guest is answered so in x0 to x3. */
function answering(answer: (x: BigUint64Array) => void): Fault {
  return onVcpu({
    getRegs(real, ids, values, outcomes) {
      const failed = real(ids, values, outcomes)
      if (isGuestCall(ids)) answer(values)
      return failed
    },
  })
}

/** Every exit but the stub guest's own is changed so, in the page. */
function exiting(change: (run: DataView) => void): Fault {
  return onVcpu({
    runSync(real, timeout) {
      const outcome = real(timeout)
      const run = new DataView(this.runPage)
      if (outcome === 0 && run.getUint32(8, true) !== exitReasons.KVM_EXIT_MMIO) change(run)
      return outcome
    },
  })
}

function listing(change: (list: BigUint64Array, outcome: number) => number): Fault {
  return onVcpu({
    getRegList(real, list) {
      return change(list, real(list))
    },
  })
}

/** Every write is answered so and changes nothing. */
function writing(outcome: number): Fault {
  return onVcpu({
    setOneReg: () => outcome,
    setRegs(real, ids, values, outcomes) {
      if (isGuestCall(ids)) return real(ids, values, outcomes)
      outcomes.fill(outcome)
      return outcome < 0 ? ids.length : 0
    },
  })
}

function reading(change: (value: bigint | number, id: bigint) => bigint | number): Fault {
  return onVcpu({ getOneReg: (real, id) => change(real(id), id) })
}

/** Where the descriptors of every kernel's statistics begin, and the earliest place of numbers. */
const [DESCRIPTORS, DATA] = [72, 200]

/** Reads of statistics are answered so: `read` bytes were read. */
function countingAs(answer: (into: Uint8Array, offset: number, read: number) => number): Fault {
  const getStatsFd = (real: () => StatsFd | number): StatsFd | number => {
    const stats = real()
    if (typeof stats === 'number') return stats
    return wrap(stats, { read: (read, offset, into) => answer(into, offset, read(offset, into)) })
  }
  return { vm: { getStatsFd }, vcpu: { getStatsFd } }
}

const refused = (name: ErrnoName): number => -errnos[name]
const orZero = (value: bigint | number): bigint => (typeof value === 'bigint' ? value : 0n)

let alternating = 0

const faults: Readonly<Record<string, Fault>> = {
  'drops what is written': writing(0),
  'refuses every write with EINVAL': writing(refused('EINVAL')),
  'refuses every write with ENOENT': writing(refused('ENOENT')),
  'refuses every write with EBUSY': writing(refused('EBUSY')),
  'reads another value': reading((value) => (typeof value === 'bigint' ? value ^ 1n : value)),
  'reads another value in the upper half': reading((value, id) =>
    typeof value === 'bigint' && ((id >> 52n) & 0xfn) >= 3n ? value ^ (1n << 40n) : value,
  ),
  'reads more than it has': reading((value) => (typeof value === 'bigint' ? value + 1n : value)),
  'reads what it has not': reading(orZero),
  'reads nothing': reading(() => refused('ENOENT')),
  'reads zero for ever': reading((value) => (typeof value === 'bigint' ? 0n : value)),
  'reads another value each time': reading((value) =>
    typeof value === 'bigint' ? value ^ BigInt(alternating++ & 1) : value,
  ),
  'gives each vCPU registers of its own': {
    vm: {
      createVcpu(real, id) {
        const fd = real(id)
        if (id === 0 || typeof fd === 'number') return fd
        return wrap(fd, { getOneReg: (get, register) => orZero(get(register)) ^ 1n })
      },
    },
  },
  'takes null for an address': onVcpu({ getOneRegAtNull: () => 0, setOneRegAtNull: () => 0 }),
  'lists a register twice': listing((list, outcome) => {
    if (outcome === 0) list[2] = list[1]!
    return outcome
  }),
  'lists in another order': listing((list, outcome) => {
    if (outcome === 0) list.subarray(1, 1 + Number(list[0])).reverse()
    return outcome
  }),
  'lists another order each time': listing((list, outcome) => {
    if (outcome === 0 && alternating++ % 2 === 0) list.subarray(1, 1 + Number(list[0])).reverse()
    return outcome
  }),
  'lists ids of another architecture': listing((list, outcome) => {
    if (outcome === 0) list[Number(list[0])] = 0x4030_0000_0010_0000n
    return outcome
  }),
  'lists the core registers alone': listing((list, outcome) => {
    if (outcome !== 0) return outcome
    const core = [...list.subarray(1, 1 + Number(list[0]))].filter(
      (id) => decodeRegister(id).space === 'core',
    )
    list.set(core, 1)
    list[0] = BigInt(core.length)
    return 0
  }),
  'lists with E2BIG always': listing((list) => {
    list[0] = 1n
    return refused('E2BIG')
  }),
  'counts other than it lists': listing((list, outcome) => {
    list[0]! += BigInt(alternating++ % 2)
    return outcome === refused('E2BIG') ? outcome : 0
  }),
  'lists with EINVAL': listing(() => refused('EINVAL')),
  'lists a firmware register beyond those it knows': listing((list, outcome) => {
    if (outcome === 0) list[Number(list[0])] = encodeRegister('KVM_REG_ARM_PSCI_VERSION') + 9n
    return outcome
  }),
  'answers every call with NOT_SUPPORTED': answering((x) => (x[0] = (1n << 64n) - 1n)),
  'answers every call with SUCCESS': answering((x) => (x[0] = 0n)),
  'answers every call with 1': answering((x) => (x[0] = 1n)),
  'answers every call in x1 too': answering((x) => (x[1]! ^= 7n)),
  'answers every call with 64 bits': answering((x) => x.fill((1n << 64n) - 2n, 0, 4)),
  'ends a run otherwise': exiting((run) => run.setUint32(8, exitReasons.KVM_EXIT_FAIL_ENTRY, true)),
  'tells other flags of an exit': exiting((run) => {
    run.setBigUint64(40, 4n, true)
    run.setBigUint64(96, run.getBigUint64(96, true) ^ 1n, true)
  }),
  'tells another number of an exit': exiting((run) => run.setUint32(32, run.getUint32(32, true) ^ 1, true)),
  'never waits': onVcpu({
    runSync(real, timeout) {
      const outcome = real(timeout)
      if (outcome !== refused('EINTR') || timeout === 0) return outcome
      const run = new DataView(this.runPage)
      run.setUint32(8, exitReasons.KVM_EXIT_FAIL_ENTRY, true)
      return 0
    },
  }),
  'refuses to run': onVcpu({ runSync: () => refused('EINVAL') }),
  'runs whatever the state': onVcpu({
    runSync(real, timeout) {
      const outcome = real(timeout)
      return outcome === refused('ENOEXEC') || outcome === refused('EPERM') ? refused('EINTR') : outcome
    },
  }),
  'finds every vCPU runnable': onVcpu({ getMpState: () => 0 }),
  'finds every vCPU stopped': onVcpu({ getMpState: () => 5 }),
  'takes every state': onVcpu({ setMpState: () => 0 }),
  'takes no state': onVcpu({ setMpState: () => refused('EINVAL') }),
  'takes every init': onVcpu({
    init(real, target, features) {
      const outcome = real(target, features)
      return outcome < 0 ? 0 : outcome
    },
  }),
  'takes an init once': onVcpu({
    init(real, target, features) {
      return typeof this.getOneReg(X0) === 'bigint' ? refused('EBUSY') : real(target, features)
    },
  }),
  'resets nothing at another init': onVcpu({
    init(real, target, features) {
      return typeof this.getOneReg(X0) === 'bigint' ? 0 : real(target, features)
    },
  }),
  'refuses an init with another errno': onVcpu({
    init(real, target, features) {
      const outcome = real(target, features)
      return outcome < 0 ? refused('ENODEV') : outcome
    },
  }),
  'finalizes anything': onVcpu({ finalize: (real, feature) => Math.max(0, real(feature)) }),
  'prefers a target it has not': {
    vm: {
      getPreferredTarget(real, init) {
        const outcome = real(init)
        init[0] = 99
        return outcome
      },
    },
  },
  'has every attribute': { vm: { hasDeviceAttr: () => 0 } },
  'takes every attribute, and forgets it': { vm: { setDeviceAttr: () => 0 } },
  'takes no attribute': { vm: { setDeviceAttr: () => refused('EINVAL') } },
  'logs no page': {
    vm: {
      getDirtyLog(real, slot, bitmap) {
        const outcome = real(slot, bitmap)
        bitmap.fill(0n)
        return outcome
      },
      clearDirtyLog: () => 0,
    },
  },
  'finds a log everywhere': { vm: { getDirtyLog: () => 0, clearDirtyLog: () => 0 } },
  'takes every interrupt, without effect': { vm: { irqLine: () => 0 } },
  'takes no interrupt': { vm: { irqLine: () => refused('EPERM') } },
  'takes every message and route': { vm: { signalMsi: () => 1, setGsiRouting: () => 0 } },
  'takes no message and no route': {
    vm: { signalMsi: () => refused('EPERM'), setGsiRouting: () => refused('EINVAL') },
  },
  'debugs no guest': onVcpu({ setGuestDebug: () => 0 }),
  'refuses to debug': onVcpu({ setGuestDebug: () => refused('EINVAL') }),
  'takes every event, without effect': { vm: { ioEventFd: () => 0, irqFd: () => 0 } },
  'takes no event': { vm: { ioEventFd: () => refused('EPERM'), irqFd: () => refused('EPERM') } },
  'coalesces nothing': { vm: { registerCoalescedMmio: () => 0 } },
  'takes no zone': {
    vm: {
      registerCoalescedMmio: () => refused('EINVAL'),
      unregisterCoalescedMmio: () => refused('ENOENT'),
    },
  },
  'removes no zone': { vm: { unregisterCoalescedMmio: () => 0 } },
  'has a ring that stays empty': onVcpu({ takeDirty: () => 0 }),
  'resets no ring': { vm: { resetDirtyRings: () => 0 } },
  'resets rings that are not there': {
    vm: { resetDirtyRings: (real) => Math.max(0, real()) },
  },
  'finds rings empty that are full': exiting((run) => {
    if (run.getUint32(8, true) === exitReasons.KVM_EXIT_DIRTY_RING_FULL) {
      run.setUint32(8, exitReasons.KVM_EXIT_MMIO, true)
    }
  }),
  'keeps bitmaps beside a ring': { vm: { getDirtyLog: () => 0 } },
  'takes a ring of any size': {
    vm: { enableCap: (real, ...args) => (real(...args) === refused('E2BIG') ? 0 : real(...args)) },
  },
  'copies tags that are not there': { vm: { copyMteTags: () => 0 } },
  'has no tags of VMs with tags': { vm: { enableCap: () => 0, copyMteTags: () => refused('EINVAL') } },
  'has no statistics': { vm: { getStatsFd: () => refused('EINVAL') } },
  'counts nothing': countingAs((into, offset, read) => {
    if (offset >= DATA) into.fill(0)
    return read
  }),
  'gives all statistics one name': countingAs((into, offset, read) => {
    if (offset !== DESCRIPTORS) return read
    for (let at = 16; at < into.length; at += 64) into.fill(0x61, at, at + 4).fill(0, at + 4, at + 48)
    return read
  }),
  'has statistics without end': countingAs((into, _, read) => Math.max(read, into.length)),
  'sets no counter back': { vm: { setCounterOffset: () => 0 } },
  'says no to every capability': { system: { checkExtension: () => 0 }, vm: { checkExtension: () => 0 } },
  'says yes to every capability': { system: { checkExtension: () => 1 }, vm: { checkExtension: () => 1 } },
  'enables anything, without effect': { vm: { enableCap: () => 0 } },
  'has a mask for every register': {
    vm: {
      getRegWritableMasks(_real, _range, masks) {
        masks.fill((1n << 64n) - 1n)
        return 0
      },
    },
  },
  'has no masks': {
    vm: {
      getRegWritableMasks(_real, _range, masks) {
        masks.fill(0n)
        return 0
      },
    },
  },
}

function withBitmaps(report: Report, bits: string): Report {
  return withRows(report, (row) =>
    row.write?.rule === 'subset' ? { ...row, value: bits, write: { rule: 'subset', of: bits } } : row,
  )
}

/** Reports of kernels that never were. */
const otherTraits: Readonly<Record<string, (report: Report) => Report>> = {
  'freezes nothing': (report) => ({
    ...report,
    traits: { ...report.traits, bitmapAfterRun: 'unguarded', idRegisterAfterRun: 'unguarded' },
  }),
  'freezes all': (report) => ({
    ...report,
    traits: { ...report.traits, bitmapAfterRun: 'busy', idRegisterAfterRun: 'busy' },
  }),
  'has bits nobody documented': (report) => withBitmaps(report, '0xff'),
  'has no bits at all': (report) => withBitmaps(report, '0x0'),
  'lost a bitmap register': (report) =>
    withRows(report, (row) => (row.id === bitmapsOf(report)[0]!.id ? undefined : row)),
  'answers no service': (report) => ({
    ...report,
    traits: { ...report.traits, hypercalls: { ...report.traits.hypercalls, services: [] } },
  }),
}

/** A simulated guest that has not ended its run after this never does, and under some faults most checks wait for it. */
const impatient = onVcpu({ runSync: (real, timeout) => real(Math.min(timeout, 20)) })

/** Nearly every check applies to the first; to the second, the one about kernels that are older. */
const [recent, older] = ['linux-7.2-max', 'linux-6.1-max'].map(builtInReport) as [Report, Report]
const ABOUT_OLDER = 'Where no masks say otherwise'
const caught = new Map<string, Set<string>>()

function failures(name: string, fault: Fault, report: Report, only = ''): string[] {
  const results = conformance(breakBackend(breakBackend(simulator(report), impatient), fault), { only })
  const failed = results.filter(({ verdict }) => verdict === 'fails').map((result) => result.name)
  for (const each of failed) caught.set(each, (caught.get(each) ?? new Set()).add(name))
  return failed
}

describe('the checks of conformance', () => {
  for (const [name, fault] of Object.entries(faults)) {
    test(`fail on a kernel that ${name}`, () => {
      const failed = failures(name, fault, recent).concat(failures(name, fault, older, ABOUT_OLDER))
      assert.notDeepEqual(failed, [])
    })
  }

  for (const [name, change] of Object.entries(otherTraits)) {
    test(`fail on a kernel that ${name}`, () => {
      assert.notDeepEqual(failures(name, {}, change(recent)), [])
    })
  }

  test('can fail, each of them', () => {
    const names = checkGroups.flatMap(({ checks }) => checks.map((check) => check.name))
    assert.deepEqual(
      names.filter((name) => !caught.has(name)),
      [],
    )
  })
})
