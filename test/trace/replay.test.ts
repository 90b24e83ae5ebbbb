import assert from 'node:assert/strict'
import { closeSync, openSync, readdirSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, it } from 'vitest'
import type { Conduit, SystemFd, VcpuFd } from '../../lib/backend.js'
import { callFromGuest, mapStub, STUB_ADDRESS } from '../../lib/kvm/guest-call.js'
import { openKvm } from '../../lib/kvm/index.js'
import { packageRoot } from '../../lib/package-root.js'
import { simulator } from '../../lib/hosts/index.js'
import {
  type Call,
  describeAnswers,
  describeCall,
  type Divergence,
  formatTrace,
  Player,
  readTrace,
  recordingBackend,
  replay,
  type TraceEntry,
} from '../../lib/trace/index.js'
import { altered, open } from '../fuzz/backends.js'
import { HEAD, temporaryFile } from './files.js'

const HOST = 'linux-6.12-max'
const STD_BMAP = 0x6030000000160000n

/** What every kind of handle does, once. */
async function doEverything(backend = simulator(HOST)): Promise<TraceEntry[]> {
  const entries: TraceEntry[] = []
  const fd = open(recordingBackend(backend, (entry) => entries.push(entry)))
  fd.getApiVersion()
  fd.getVcpuMmapSize()
  fd.checkExtension(165)
  fd.createVm(0x7fn)
  const vm = made(fd.createVm(0n))
  vm.checkExtension(239)
  vm.enableCap(216, 0, [])
  vm.enableCap(9999, 0, [1n])
  vm.getPreferredTarget(new Uint32Array(8))
  vm.getRegWritableMasks(0, new BigUint64Array(192))
  const memory = made(fd.createMemory(0x10000))
  vm.setUserMemoryRegion({ slot: 0, flags: 0, address: 0n, memory, offset: 0, size: 0x10000 })
  vm.setUserMemoryRegion({ slot: 0, flags: 0, address: 0n, memory: null, offset: 0, size: 0 })
  vm.hasDeviceAttr(0, 0n)
  const filter = new Uint8Array(24)
  new DataView(filter.buffer).setUint32(0, 0x86000000, true)
  filter[4] = 1
  vm.setDeviceAttr(0, 0n, filter)
  filter[23] = 1
  vm.setDeviceAttr(0, 0n, filter)
  vm.setDeviceAttr(0, 0n, null)
  vm.createDevice(99, 0)
  const gic = made(vm.createDevice(7, 0))
  gic.getDeviceAttr(0, 2n, new Uint8Array(8))
  gic.setDeviceAttr(0, 2n, new Uint8Array(8))
  gic.close()
  const machine = made(fd.createVm(0n))
  const vcpu = made(machine.createVcpu(0))
  machine.createVcpu(0)
  vcpu.getOneReg(STD_BMAP)
  vcpu.init(5, [0x14])
  vcpu.finalize(4)
  vcpu.getRegList(new BigUint64Array(1))
  const list = new BigUint64Array(1001)
  list[0] = 1000n
  vcpu.getRegList(list)
  vcpu.getOneReg(STD_BMAP)
  vcpu.setOneReg(STD_BMAP, 0n)
  vcpu.getOneRegAtNull(STD_BMAP)
  vcpu.setOneRegAtNull(STD_BMAP)
  const ids = new BigUint64Array([STD_BMAP, 0x6040000000100054n, 0x6030000000169999n])
  vcpu.getRegs(ids, new BigUint64Array(3), new Int32Array(3))
  vcpu.setRegs(ids, new BigUint64Array(3), new Int32Array(3))
  vcpu.getMpState()
  vcpu.setMpState(5)
  vcpu.getVcpuEvents(new Uint8Array(64))
  vcpu.setVcpuEvents(new Uint8Array(64))
  vcpu.hasDeviceAttr(1, 0n)
  new Uint8Array(vcpu.runPage)[1] = 1
  vcpu.runSync(0)
  new Uint8Array(vcpu.runPage)[1] = 0
  const running = vcpu.run()
  vcpu.setOneReg(STD_BMAP, 1n)
  vcpu.kick()
  await running
  vcpu.close()
  vcpu.close()
  assert.equal(vcpu.getMpState(), -9)
  machine.close()
  callFromGuests(fd)
  vm.close()
  fd.close()
  return entries
}

/** Calls that come back, that end the run, and that cannot be made. */
function callFromGuests(fd: SystemFd): void {
  const vm = made(fd.createVm(0n))
  const stub = made(mapStub(fd, vm))
  const vcpu = made(vm.createVcpu(0))
  const call = (conduit: Conduit, ...args: bigint[]): unknown =>
    callFromGuest(vcpu, { conduit, args }, (each) => each.runSync(5))
  call('hvc', 0x8000_0000n)
  vcpu.init(5, [0x4])
  call('hvc', 0x8000_0000n)
  call('smc', 0x8600_0001n, 0n)
  call('hvc', 0x8400_0050n)
  call('hvc', 0x8400_0053n, 64n)
  call('hvc', 0x8400_0008n)
  call('hvc', 0x8000_0000n)
  vcpu.close()
  stub.close()
  vm.close()
}

function broken(): RangeError {
  return new RangeError('broken')
}

function made<T>(outcome: T | number): T {
  assert.ok(typeof outcome !== 'number', String(outcome))
  return outcome
}

function divergencesOn(host: string, entries: readonly TraceEntry[]): Divergence[] {
  const divergences: Divergence[] = []
  const numbered = entries.map((entry, index) => ({ ...entry, line: index + 2 }))
  replay(numbered, open(simulator(host)), (divergence) => divergences.push(divergence))
  return divergences
}

describe('a recording', () => {
  it('holds every call of every handle, and none that reached no kernel', async () => {
    const entries = await doEverything()
    const ops = new Set(entries.map(({ call }) => call.op))
    // Calls for several registers are as many calls, the register too wide for them was never asked for.
    assert.equal(entries.filter(({ call }) => 'id' in call && call.id === '0x6030000000169999').length, 2)
    assert.equal(entries.filter(({ call }) => 'id' in call && call.id === '0x6040000000100054').length, 0)
    assert.equal(ops.size, 28)
    assert.equal(entries.filter(({ call }) => call.op === 'close').length, 6)
    assert.ok(entries.every(({ outcome }) => outcome.errno !== 'EBADF'))
  })

  it('holds the calls of a guest, and not what they are made of', async () => {
    const entries = await doEverything()
    const from = entries.findIndex(({ call }) => call.op === 'hvc') - 2
    assert.deepEqual(
      entries.slice(from, -2).map(({ call, outcome }) => [call.op, outcome.errno ?? outcome.exit ?? '']),
      [
        ['create_vm', ''],
        ['create_vcpu', ''],
        ['hvc', 'ENOEXEC'],
        ['vcpu_init', ''],
        ['hvc', ''],
        ['smc', ''],
        ['hvc', ''],
        ['hvc', ''],
        ['hvc', 24],
        ['hvc', 'EINTR'],
        ['close', ''],
      ],
    )
    assert.deepEqual(
      entries.find(({ outcome }) => outcome.x),
      {
        call: { op: 'hvc', vcpu: 2, args: ['0x80000000'] },
        outcome: { x: ['0x10001', '0x0', '0x0', '0x0'] },
      },
    )
  })

  it('puts a run where it began', async () => {
    const entries = await doEverything()
    const places = entries.flatMap(({ call }, place) => (call.op === 'run' ? [place] : []))
    const write = entries.findLastIndex(({ call }) => call.op === 'set_one_reg')
    assert.equal(places.length, 2)
    assert.deepEqual(entries[write]!.outcome, { errno: 'EBUSY' })
    assert.ok(places[1]! < write)
  })

  it('names what its backend simulates', () => {
    const { name, host, simulates } = simulator(HOST)
    const recorded = recordingBackend(simulator(HOST), () => undefined)
    assert.deepEqual([recorded.name, recorded.host, recorded.simulates], [name, host, simulates])
    assert.equal(simulates, HOST)
  })

  it('says of a run that a kept kick ended that it executed nothing', async () => {
    const entries: TraceEntry[] = []
    using kvm = openKvm(recordingBackend(simulator(HOST), (entry) => entries.push(entry)))
    using vm = kvm.createVm()
    const vcpu = vm.createVcpu(0)
    // Maps the stub, whose second instruction is a store that ends the run.
    vcpu.hypercall(0x8400_0000)
    const rewind = (): void => {
      vcpu.freeze()
      vcpu.registers.set('pc', STUB_ADDRESS + 4n)
    }
    for (const next of ['run', 'runSync'] as const) {
      rewind()
      const run = vcpu.run()
      vcpu.kick()
      assert.equal((await run).reason, 'mmio')
      rewind()
      assert.equal((await vcpu[next]()).reason, 'interrupted')
      assert.equal(vcpu.runSync().reason, 'mmio')
    }
    const runs = entries.flatMap(({ call, outcome }) => (call.op === 'run' ? [{ ...call, ...outcome }] : []))
    const freeze = [true, 'EINTR']
    const round = [freeze, [false, 6], freeze, [true, 'EINTR'], [false, 6]]
    assert.deepEqual(
      runs.map(({ immediate_exit: isImmediate, errno, exit }) => [isImmediate, errno ?? exit]),
      [...round, ...round],
    )
  })

  it('goes on after a run that throws', async () => {
    const entries: TraceEntry[] = []
    const system = open(simulator(HOST))
    const withBrokenRun = altered(system, {
      createVm: (type) => {
        const vm = made(system.createVm(type))
        const createVcpu = (id: number): VcpuFd =>
          altered(made(vm.createVcpu(id)), {
            run: () => Promise.reject(broken()),
            runSync: () => assert.fail(broken()),
          })
        return altered(vm, { createVcpu })
      },
    })
    const backend = { ...simulator(HOST), open: () => withBrokenRun }
    const fd = open(recordingBackend(backend, (entry) => entries.push(entry)))
    const vcpu = made(made(fd.createVm(0n)).createVcpu(0))
    assert.throws(() => vcpu.runSync(0), /broken/)
    await assert.rejects(vcpu.run(), /broken/)
    vcpu.getMpState()
    assert.deepEqual(
      entries.map(({ call }) => call.op),
      ['create_vm', 'create_vcpu', 'get_mp_state'],
    )
  })

  it('is replayed without a divergence where it was made', async () => {
    assert.deepEqual(divergencesOn(HOST, await doEverything()), [])
  })

  it('is read from its file as it was told', async () => {
    const entries = await doEverything()
    using file = temporaryFile(formatTrace({ host: 'x' }, entries))
    assert.deepEqual(
      [...readTrace(file.path).entries].map(({ call, outcome }) => ({ call, outcome })),
      JSON.parse(JSON.stringify(entries)),
    )
  })

  it('follows the handles above the ioctls too', () => {
    const entries: TraceEntry[] = []
    using kvm = openKvm(recordingBackend(simulator(HOST), (entry) => entries.push(entry)))
    using vm = kvm.createVm()
    vm.createVcpu(0)
    vm.services.elect({ std: [] })
    assert.ok(entries.some(({ call }) => call.op === 'set_one_reg' && call.value === '0x0'))
    assert.deepEqual(divergencesOn(HOST, entries), [])
  })

  it('begins with a memory and an event that were made elsewhere, so that it can be read and replayed', () => {
    const entries: TraceEntry[] = []
    using other = openKvm(simulator(HOST))
    using kvm = openKvm(recordingBackend(simulator(HOST), (entry) => entries.push(entry)))
    using vm = kvm.createVm()
    vm.mapMemory(0, { address: 0n, memory: other.createMemory(0x1_0000) })
    const [event, resampled] = [other.createEvent(), other.createEvent()]
    vm.mmio.doorbell(0x900_0000n, 4, event)
    vm.mmio.doorbell(0x900_0008n, 4, event)
    vm.createVcpu(0)
    vm.createGic({ version: 3, distributor: 0x800_0000n, redistributors: 0x80a_0000n })
    vm.connectIrq(1, event, { resampled })
    using file = temporaryFile(formatTrace({ host: 'x' }, entries))
    const read = [...readTrace(file.path).entries]
    assert.deepEqual(
      read.flatMap(({ call }) =>
        ['create_memory', 'set_user_memory_region', 'create_event', 'ioeventfd', 'irqfd'].includes(call.op)
          ? [call.op]
          : [],
      ),
      [
        'create_memory',
        'set_user_memory_region',
        'create_event',
        'ioeventfd',
        'ioeventfd',
        'create_event',
        'irqfd',
      ],
    )
    assert.deepEqual(divergencesOn(HOST, entries), [])
  })

  it('gives each handle a number of its own though /dev/kvm is opened twice', () => {
    const entries: TraceEntry[] = []
    const backend = recordingBackend(simulator(HOST), (entry) => entries.push(entry))
    using one = openKvm(backend)
    using two = openKvm(backend)
    using vm = one.createVm()
    using other = two.createVm()
    const event = two.createEvent()
    vm.mmio.doorbell(0x900_0000n, 4, event)
    vm.createVcpu(0)
    other.createVcpu(0)
    const numbers = entries.flatMap(({ call }) => (call.op === 'create_vm' ? [call.vm] : []))
    assert.deepEqual(numbers, [0, 1])
    assert.equal(entries.filter(({ call }) => call.op === 'create_event').length, 1)
    assert.deepEqual(divergencesOn(HOST, entries), [])
  })

  it('passes on why KVM cannot be opened', () => {
    const backend = recordingBackend({ ...simulator(HOST), open: () => -13 }, () => assert.fail())
    assert.equal(backend.open(), -13)
    assert.equal(backend.name, 'simulator')
  })
})

describe('a replay', () => {
  it('tells each divergence with its line and both answers', async () => {
    const divergences = divergencesOn('linux-6.1-max', await doEverything())
    const told = divergences.find(({ call }) => call.op === 'smccc_filter')!
    assert.equal(told.line, 16)
    assert.deepEqual(describeAnswers(told.recorded, told.replayed), ['ret 0', 'EINVAL'])
  })

  it('names the line of a call on a handle that was never made', () => {
    const vm: TraceEntry = { call: { op: 'create_vm', vm: 0, type: '0x0' }, outcome: { ret: 0 } }
    const region = { vm: 0, slot: 0, flags: 0, address: '0x0', offset: 0, size: 0x1_0000 }
    const doorbell = { vm: 0, address: '0x0', size: 4, flags: 0, datamatch: '0x0' }
    const calls: readonly Call[] = [
      { op: 'ioeventfd', ...doorbell, event: 7 },
      { op: 'irqfd', vm: 0, event: 7, gsi: 1, flags: 0 },
      { op: 'set_user_memory_region', ...region, memory: 7 },
      { op: 'create_vcpu', vm: 7, vcpu: 0, id: 0 },
      { op: 'run', vcpu: 7, immediate_exit: true },
      { op: 'hvc', vcpu: 7, args: [] },
      { op: 'get_stats_fd', vcpu: 7 },
      { op: 'set_device_attr', device: 7, group: 0, attr: '0x0', data: '' },
    ]
    const entries = [vm, ...calls.map((call): TraceEntry => ({ call, outcome: { ret: 0 } }))]
    const found = divergencesOn(HOST, entries)
    assert.deepEqual(
      found.map(({ line, replayed }) => [line, replayed]),
      calls.map((_, index) => [index + 3, { errno: 'EBADF' }]),
    )
  })

  it('takes any value of a counter for as good as another', () => {
    const counter = '0x603000000013df1a'
    const entries: TraceEntry[] = [
      { call: { op: 'create_vm', vm: 0, type: '0x0' }, outcome: { ret: 0 } },
      { call: { op: 'create_vcpu', vm: 0, vcpu: 0, id: 0 }, outcome: { ret: 0 } },
      { call: { op: 'vcpu_init', vcpu: 0, target: 'preferred', features: ['0x4'] }, outcome: { ret: 0 } },
      { call: { op: 'get_one_reg', vcpu: 0, id: counter }, outcome: { value: '0x1' } },
    ]
    assert.deepEqual(divergencesOn(HOST, entries), [])
    entries[3]!.outcome = { errno: 'ENOENT' }
    assert.equal(divergencesOn(HOST, entries).length, 1)
  })

  describe('of what a guest is told of time or by chance', () => {
    const guest: TraceEntry[] = [
      { call: { op: 'create_vm', vm: 0, type: '0x0' }, outcome: { ret: 0 } },
      { call: { op: 'create_vcpu', vm: 0, vcpu: 0, id: 0 }, outcome: { ret: 0 } },
      { call: { op: 'vcpu_init', vcpu: 0, target: 'preferred', features: ['0x4'] }, outcome: { ret: 0 } },
    ]
    for (const [args, x, isSame] of [
      [['0x86000001'], ['0x1', '0x2', '0x3', '0x4'], true],
      [['0x86000001'], ['0x1', '0x2', '0x3', '0x100000000'], false],
      [['0x86000001'], ['0xffffffffffffffff', '0x0', '0x0', '0x0'], false],
      [['0x84000053', '0x3'], ['0x0', '0x0', '0x0', '0x7'], true],
      [['0x84000053', '0x3'], ['0x0', '0x0', '0x0', '0x8'], false],
      [['0x84000053', '0x3'], ['0x1', '0x0', '0x0', '0x7'], false],
      [['0x84000053', '0x60'], ['0x0', '0xffffffff', '0x0', '0x0'], true],
      [['0x84000053', '0x60'], ['0x0', '0x100000000', '0x0', '0x0'], false],
      [['0xc4000053', '0x1000000041'], ['0x0', '0x0', '0x1', '0x0'], true],
      [['0xc4000053', '0x41'], ['0x0', '0x0', '0x2', '0x0'], false],
      [['0x84000050'], ['0x10000', '0x0', '0x0', '0x1'], false],
    ] as const) {
      it(`${x.join(' ')} to ${args.join(' ')} is ${isSame ? 'as good' : 'another answer'}`, () => {
        const call: Call = { op: 'hvc', vcpu: 0, args: [...args] }
        assert.equal(divergencesOn(HOST, [...guest, { call, outcome: { x } }]).length, isSame ? 0 : 1)
      })
    }
  })

  it('lets a guest call whose VM is closed only if it could before', () => {
    const player = new Player(open(simulator(HOST)))
    for (const vm of [0, 1]) {
      player.perform({ op: 'create_vm', vm, type: '0x0' })
      player.perform({ op: 'create_vcpu', vm, vcpu: vm, id: 0 })
      player.perform({ op: 'vcpu_init', vcpu: vm, target: 'preferred', features: ['0x4'] })
    }
    assert.ok(player.perform({ op: 'smc', vcpu: 1, args: ['0x80000000'] }).x)
    for (const vm of [0, 1]) player.perform({ op: 'close', vm })
    assert.deepEqual(player.perform({ op: 'hvc', vcpu: 0, args: ['0x80000000'] }), { errno: 'EBADF' })
    assert.deepEqual(player.perform({ op: 'hvc', vcpu: 1, args: ['0x80000000'] }), {
      x: ['0x10001', '0x0', '0x0', '0x0'],
    })
    assert.deepEqual(player.perform({ op: 'hvc', vcpu: 7, args: [] }), { errno: 'EBADF' })
  })

  it('tells that the stub of a guest’s call does not fit into its VM', () => {
    const player = new Player(open(simulator(HOST)))
    const region = { slot: 0, flags: 0, address: '0xf000000', memory: 0, offset: 0, size: 0x10000 }
    const calls: Call[] = [
      { op: 'create_vm', vm: 0, type: '0x0' },
      { op: 'create_memory', memory: 0, size: 0x10000 },
      { op: 'set_user_memory_region', vm: 0, ...region },
      { op: 'create_vcpu', vm: 0, vcpu: 0, id: 0 },
    ]
    for (const call of calls) assert.deepEqual(player.perform(call), { ret: 0 })
    assert.deepEqual(player.perform({ op: 'hvc', vcpu: 0, args: [] }), { errno: 'EEXIST' })
  })

  it('answers EBADF for what was never made, or is closed', () => {
    const player = new Player(open(simulator(HOST)))
    const calls: Call[] = [
      { op: 'create_vcpu', vm: 0, vcpu: 0, id: 0 },
      { op: 'check_extension', vm: 0, cap: 1 },
      { op: 'get_one_reg', vcpu: 0, id: '0x6030000000160000' },
      { op: 'vcpu_init', vcpu: 0, target: 'preferred', features: [] },
      { op: 'get_mp_state', vcpu: 0 },
      { op: 'has_device_attr', device: 0, group: 0, attr: '0x0' },
    ]
    for (const call of calls) assert.deepEqual(player.perform(call), { errno: 'EBADF' })
  })

  it('interrupts a vCPU that was left running', () => {
    const entries: TraceEntry[] = [
      { call: { op: 'create_vm', vm: 0, type: '0x0' }, outcome: { ret: 0 } },
      { call: { op: 'create_vcpu', vm: 0, vcpu: 0, id: 0 }, outcome: { ret: 0 } },
      { call: { op: 'vcpu_init', vcpu: 0, target: 5, features: ['0x4'] }, outcome: { ret: 0 } },
      { call: { op: 'run', vcpu: 0, immediate_exit: false }, outcome: { errno: 'EINTR' } },
    ]
    assert.deepEqual(divergencesOn(HOST, entries), [])
  })

  it('of a million calls needs no more memory than one of some', () => {
    using file = temporaryFile('')
    const descriptor = openSync(file.path, 'w')
    writeSync(
      descriptor,
      `${HEAD}{"op":"create_vm","vm":0,"type":"0x0","ret":0}\n{"op":"create_vcpu","vm":0,"vcpu":0,"id":0,"ret":0}\n` +
        '{"op":"vcpu_init","vcpu":0,"target":"preferred","features":["0x4"],"ret":0}\n',
    )
    const lines =
      '{"op":"set_one_reg","vcpu":0,"id":"0x6030000000160000","value":"0x0","ret":0}\n' +
      '{"op":"get_one_reg","vcpu":0,"id":"0x6030000000160000","value":"0x0"}\n'
    for (let count = 0; count < 500; count++) writeSync(descriptor, lines.repeat(1000))
    closeSync(descriptor)
    let before = 0
    const { entries } = readTrace(file.path)
    const watched = (function* () {
      for (const entry of entries) {
        if (entry.line === 100_000) before = process.memoryUsage.rss()
        yield entry
      }
    })()
    const calls = replay(watched, open(simulator(HOST)), () => assert.fail())
    assert.equal(calls, 1_000_003)
    // The collector's leisure; the trace itself has 75 MiB.
    assert.ok(process.memoryUsage.rss() - before < 48 * 1024 * 1024)
  })
})

describe('a call for a person to read', () => {
  it('has the register’s name', () => {
    assert.equal(
      describeCall({ op: 'set_one_reg', vcpu: 2, id: '0x6030000000160000', value: '0x1' }),
      'set_one_reg vcpu 2 KVM_REG_ARM_STD_BMAP (0x6030000000160000) value 0x1',
    )
    assert.equal(
      describeCall({ op: 'smc', vcpu: 1, args: ['0xc4000003', '0x1'] }),
      'smc vcpu 1 PSCI_CPU_ON_64 (0xc4000003) 0x1',
    )
    assert.equal(describeCall({ op: 'hvc', vcpu: 1, args: [] }), 'hvc vcpu 1 0x00000000 (0x0)')
    assert.equal(
      describeCall({ op: 'vcpu_init', vcpu: 0, target: 'preferred', features: ['0x4', '0x0'] }),
      'vcpu_init vcpu 0 target preferred features [0x4, 0x0]',
    )
  })

  for (const [a, b, expected] of [
    [{ errno: 'EBUSY' }, { ret: 0 }, ['EBUSY', 'ret 0']],
    [{ value: '0x1' }, { fault: 'not recorded' }, ['0x1', 'not recorded']],
    [{ n: '0x2', errno: 'E2BIG' }, { exit: 24 }, ['E2BIG n 0x2', 'exit 24']],
    [{ n: '0x1', regs: ['0x6030000000100000'] }, { errno: 'EPERM' }, ['n 0x1 1 registers', 'EPERM']],
    [
      { regs: ['0x6030000000100000', '0x6030000000100002'] },
      { regs: ['0x6030000000100002', '0x6030000000100000'] },
      ['2 registers, in place 0 x0', '2 registers, in place 0 x1'],
    ],
    [
      { regs: ['0x6030000000100000', '0x6030000000100002'] },
      { regs: ['0x6030000000100000'] },
      ['2 registers, among them x1', '1 registers'],
    ],
    [{ masks: { '8': '0xf' } }, { words: [5] }, ['masks {"8":"0xf"}', 'words [5]']],
  ] as const) {
    it(`answers are told apart: ${expected.join(' and ')}`, () => {
      assert.deepEqual(describeAnswers(a, b), expected)
    })
  }
})

describe('what was once answered otherwise than by the real kernel', () => {
  const folder = fileURLToPath(new URL('test/trace/cases/', packageRoot))
  for (const host of readdirSync(folder)) {
    for (const name of readdirSync(join(folder, host))) {
      it(`${host}: ${name.replace('.ndjson', '').replaceAll('-', ' ')}`, () => {
        const divergences: Divergence[] = []
        const { entries } = readTrace(join(folder, host, name))
        replay(entries, open(simulator(host)), (divergence) => divergences.push(divergence))
        assert.deepEqual(divergences, [])
      })
    }
  }
})
