/** Moves of a machine between simulated hosts; test/lab-kernels/machine.test.ts moves Linux. */
import assert from 'node:assert/strict'
import { randomFillSync } from 'node:crypto'
import { createReadStream, createWriteStream, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { connect, createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PassThrough, Readable, Writable } from 'node:stream'
import { afterAll, beforeAll, describe, test } from 'vitest'
import { computeBaseline } from '../../lib/fleet/baseline/baseline.js'
import type { Baseline } from '../../lib/fleet/baseline/format.js'
import { type BuiltInHost, builtInReport, simulator } from '../../lib/hosts/index.js'
import { type Kvm, openKvm } from '../../lib/kvm/index.js'
import { MachineError, MoveRefusedError } from '../../lib/machine/errors.js'
import {
  bootMachine,
  type Machine,
  type MachineOptions,
  receiveMachine,
  type SendOptions,
} from '../../lib/machine/index.js'
import { strict } from '../../lib/migration/vmm/rules.js'
import { type Direction, duplexPair } from './duplex-pair.js'
import { Host, HOST } from './host.js'
import { kernelImage } from './images.js'

let kvm: Kvm
const folder = mkdtempSync(join(tmpdir(), 'kvm-arm64-move-'))
beforeAll(() => (kvm = openKvm(simulator(HOST))))
afterAll(() => {
  kvm.close()
  rmSync(folder, { recursive: true })
})

/** `str x2, [x1]` */
const STORE = 0xf900_0022
const HVC = 0xd400_0002
const WAIT = 0x1400_0000
const SYSTEM_OFF = 0x8400_0008n
const SYSTEM_RESET = 0x8400_0009n
const SERIAL = 0x0900_0000n
const START = 0x4000_0000n

/** A guest that waits; `make` lets it do something else. */
function waiting(more: Partial<MachineOptions> = {}): Machine {
  const kernel = kernelImage()
  kernel.writeUInt32LE(WAIT, 0)
  for (const [index, instruction] of [STORE, WAIT, HVC].entries())
    kernel.writeUInt32LE(instruction, 64 + 4 * index)
  return bootMachine({ kvm, kernel, memory: 4, ...more })
}

/** Makes the guest store a number. */
async function store(machine: Machine, address: bigint, value: bigint): Promise<void> {
  await machine.pause()
  const { registers } = machine.vm.vcpus[0]!
  registers.set('x1', address)
  registers.set('x2', value)
  registers.set('pc', START + 64n)
  machine.resume()
  await new Promise(setImmediate)
}

/** Makes the guest call its hypervisor. */
async function call(machine: Machine, function_: bigint): Promise<void> {
  await machine.pause()
  const { registers } = machine.vm.vcpus[0]!
  registers.set('x0', function_)
  registers.set('pc', START + 72n)
  machine.resume()
}

/** Whether the guest runs: it prints, and then switches off. */
async function assertAlive(machine: Machine): Promise<void> {
  await store(machine, SERIAL, BigInt('x'.charCodeAt(0)))
  await machine.console.expect('x')
  await call(machine, SYSTEM_OFF)
  assert.equal(await machine.ended, 'off')
}

function readText(machine: Machine, offset: bigint, length: number): string {
  return Buffer.from(machine.vm.memory.read(START + offset, length)).toString()
}

function failure(code: string, problem = /./): (error: unknown) => boolean {
  return (error) => error instanceof MachineError && error.code === code && problem.test(error.message)
}

/** Sends and receives at once. */
async function move(
  source: Machine,
  host: Kvm,
  damage: (ways: { out: Direction; back: Direction }) => void = () => undefined,
  options: SendOptions = {},
): Promise<{ sent: PromiseSettledResult<unknown>; received: PromiseSettledResult<Machine>; bytes: number }> {
  const { here, there, out, back } = duplexPair()
  damage({ out, back })
  const [sent, received] = await Promise.allSettled([
    source.send(here, options),
    receiveMachine(there, { kvm: host }),
  ])
  return { sent, received, bytes: out.passed }
}

/** The baseline of hosts for the vCPUs of a machine. */
function baselineOf(...names: BuiltInHost[]): Baseline {
  const hosts = names.map((name) => ({ name, report: builtInReport(name) }))
  return computeBaseline(hosts, { features: ['psci-0.2'] })
}

function bitmapIn({ bitmaps }: Baseline): string {
  return bitmaps.find(({ name }) => name === 'KVM_REG_ARM_VENDOR_HYP_BMAP')!.value
}

async function moveBy(baseline: Baseline, source: Machine, host: Kvm): Promise<Machine> {
  const { here, there } = duplexPair()
  const received = receiveMachine(there, { kvm: host, baseline })
  await source.send(here)
  return await received
}

function reasonOf(result: PromiseSettledResult<unknown>): unknown {
  return result.status === 'rejected' ? result.reason : assert.fail('it was moved')
}

function machineOf(result: PromiseSettledResult<Machine>): Machine {
  return result.status === 'fulfilled' ? result.value : assert.fail(String(result.reason))
}

/** Returns the bytes of a stream up to the guest's end here, or with `all` those of a whole move. */
async function lengthOf(source: Machine, all = false): Promise<number> {
  let passed = 0
  const counter = new Writable({
    write: (chunk: Buffer, _encoding, done) => done(void (passed += chunk.length)),
  })
  await source.send(counter, { continues: true })
  // The header of a snapshot has `false` where that of a move has `true`.
  return passed - 1 + (all ? 12 : -12)
}

describe('a machine that is sent', () => {
  test('goes on at the destination, with its memory and registers, and ends here', async () => {
    using host = new Host()
    const source = waiting({ smp: 2, console: 'virtio', disks: [{ content: new Uint8Array(1024) }] })
    source.vm.memory.write(START + 0x10_0000n, Buffer.from('kept'))
    const { here, there } = duplexPair()
    const [sent, machine] = await Promise.all([
      source.send(here),
      receiveMachine(there, { kvm: host.kvm, disks: [{ content: new Uint8Array(1024) }] }),
    ])
    assert.equal(await source.ended, 'moved')
    assert.equal(sent.rounds, 1)
    assert.ok(sent.downtime > 0 && sent.duration > sent.downtime && sent.bytes > 4096)
    assert.equal(readText(machine, 0x10_0000n, 4), 'kept')
    const isOff = machine.vm.vcpus.map(({ features }) => features.includes('power-off'))
    assert.deepEqual(isOff, [false, true])
    await store(machine, SERIAL, 0x78n)
    await machine.serial.expect('x')
    await call(machine, SYSTEM_OFF)
    assert.equal(await machine.ended, 'off')
    assert.equal(host.open, 0)
  })

  test('goes over a socket, and back', async () => {
    const server = createServer()
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const { port } = server.address() as { port: number }
    let machine = waiting()
    for (let count = 0; count < 2; count++) {
      const accepted = new Promise<Socket>((resolve) => server.once('connection', resolve))
      const sending = machine.send(connect(port, '127.0.0.1'))
      const received = await receiveMachine(await accepted, { kvm })
      await sending
      machine = received
    }
    await assertAlive(machine)
    // Both ends are closed.
    await new Promise((resolve) => server.close(resolve))
  })

  test('is a snapshot in a file, which can be started again and again', async () => {
    const file = join(folder, 'snapshot')
    const source = waiting({ disks: [{ content: new Uint8Array(512), readonly: true }] })
    source.vm.memory.write(START + 0x10_0000n, Buffer.from('kept'))
    let isIdle: boolean | undefined
    await source.send(createWriteStream(file), {
      continues: true,
      whileStopped: () => void (isIdle = source.vm.vcpus[0]!.idle),
    })
    assert.equal(isIdle, true)
    await assertAlive(source)
    const disks = [{ content: new Uint8Array(512), readonly: true }]
    for (let count = 0; count < 2; count++) {
      const machine = await receiveMachine(createReadStream(file), { kvm, disks })
      assert.equal(readText(machine, 0x10_0000n, 4), 'kept')
      await assertAlive(machine)
    }
    const last = waiting()
    await last.send(createWriteStream(file))
    assert.equal(await last.ended, 'moved')
  })

  test('brings what the guest wrote meanwhile, also pages that have become empty', async () => {
    const [first, emptied] = [START + 0x800n, START + 0x4000n]
    const source = waiting()
    source.vm.memory.write(emptied, Uint8Array.of(1))
    source.vm.memory.write(START + 0x10_0000n, randomFillSync(new Uint8Array(1 << 20)))
    const chunks: Buffer[] = []
    let passed = 0
    let state = 'early'
    const file = new Writable({
      highWaterMark: 1 << 16,
      write: (chunk: Buffer, _encoding, done) => {
        chunks.push(chunk)
        passed += chunk.length
        if (state !== 'early' || passed < 1 << 20) return done()
        state = 'written'
        // These pages have been sent.
        return void (async () => {
          await store(source, first, 0x2121n)
          await store(source, emptied, 0n)
          done()
        })()
      },
    })
    const { rounds } = await source.send(file, { downtime: 0, rounds: 2 })
    assert.equal(rounds, 2)
    const machine = await receiveMachine(Readable.from(chunks), { kvm })
    assert.equal(readText(machine, 0x800n, 2), '!!')
    assert.equal(readText(machine, 0x4000n, 1), '\0')
    await assertAlive(machine)
  })

  test('can be paused before, and runs at the destination', async () => {
    const source = waiting()
    await source.pause()
    const { received } = await move(source, kvm)
    await assertAlive(machineOf(received))
  })

  test('ends with the guest that restarts after a move', async () => {
    const { received } = await move(waiting(), kvm)
    const machine = machineOf(received)
    await call(machine, SYSTEM_RESET)
    assert.equal(await machine.ended, 'reset')
  })
})

describe('a destination', () => {
  test('refuses a machine for what the verdict finds, before its memory comes', async () => {
    using host = new Host('linux-5.10-cortex-a57')
    const source = waiting()
    source.vm.memory.write(START + 0x10_0000n, randomFillSync(new Uint8Array(1 << 20)))
    const { sent, received, bytes } = await move(source, host.kvm)
    const [here, there] = [reasonOf(sent), reasonOf(received)]
    assert.ok(here instanceof MoveRefusedError && there instanceof MoveRefusedError)
    assert.deepEqual(here.findings, there.findings)
    assert.deepEqual(here.reasons, there.reasons)
    assert.ok(here.findings.length > 0)
    assert.match(here.message, /the destination refuses the machine: .*remedy/)
    assert.ok(bytes < 200_000, `${bytes} bytes`)
    assert.equal(host.open, 0)
    await assertAlive(source)
  })

  test('lets its caller refuse a machine that can be restored', async () => {
    const source = waiting()
    const { here, there } = duplexPair()
    const [sent, received] = await Promise.allSettled([
      source.send(here),
      receiveMachine(there, { kvm, accept: () => false }),
    ])
    for (const result of [sent, received]) {
      assert.ok(failure('ERR_MACHINE_REFUSED', /accept\(\) declined/)(reasonOf(result)))
    }
    await assertAlive(source)
  })

  test('restores by the rules of its caller', async () => {
    const source = waiting()
    const { here, there } = duplexPair()
    let vmm = ''
    const [, machine] = await Promise.all([
      source.send(here),
      receiveMachine(there, {
        kvm,
        rules: { ...strict, name: 'of the fleet' },
        accept: (verdict) => ((vmm = verdict.vmm), verdict.possible),
      }),
    ])
    assert.equal(vmm, 'of the fleet')
    await assertAlive(machine)
  })

  test('takes a machine with the baseline of the fleet, from a newer kernel and back', async () => {
    const [newName, oldName] = ['linux-7.2-neoverse-n1', 'linux-6.1-neoverse-n1'] as const
    using newer = new Host(newName)
    using older = new Host(oldName)
    const bare = waiting({ kvm: newer.kvm })
    const refused = reasonOf((await move(bare, older.kvm)).sent)
    assert.ok(refused instanceof MoveRefusedError)
    const found = refused.findings.flatMap((finding) => ('register' in finding ? finding.register.name : []))
    assert.ok(found.includes('KVM_REG_ARM_PSCI_VERSION'), String(found))
    await assertAlive(bare)

    const baseline = baselineOf(newName, oldName)
    const there = await moveBy(baseline, waiting({ kvm: newer.kvm, smp: 2, baseline }), older.kvm)
    await there.pause()
    for (const { registers } of there.vm.vcpus) {
      assert.equal(registers.get('KVM_REG_ARM_PSCI_VERSION'), 0x1_0001n)
      assert.equal(registers.get('KVM_REG_ARM_VENDOR_HYP_BMAP'), BigInt(bitmapIn(baseline)))
    }
    there.resume()
    await assertAlive(await moveBy(baseline, there, newer.kvm))
  })

  test('needs a baseline for its features, and one that its host can elect', () => {
    using host = new Host('linux-6.1-neoverse-n1')
    const newer = baselineOf('linux-7.2-neoverse-n1')
    const pmu = { ...newer, features: ['psci-0.2', 'pmu-v3'] as const } as Baseline
    assert.throws(
      () => waiting({ kvm: host.kvm, baseline: pmu }),
      failure('ERR_MACHINE_BASELINE', /expected a baseline for vCPUs with psci-0\.2, .* pmu-v3/),
    )
    assert.throws(
      () => waiting({ kvm: host.kvm, baseline: newer }),
      failure('ERR_MACHINE_BASELINE', /refuses .*KVM_REG_ARM_PSCI_VERSION/),
    )
    assert.equal(host.open, 0)
  })

  test('refuses other disks', async () => {
    const disk = join(folder, 'disk.img')
    writeFileSync(disk, new Uint8Array(1024))
    const source = waiting({ disks: [disk] })
    const { received } = await move(source, kvm)
    const expected = /its disks are 1024 bytes; those given here are none/
    assert.ok(failure('ERR_MACHINE_REFUSED', expected)(reasonOf(received)))
    await assertAlive(source)
  })

  test('needs a stream that takes its answers', async () => {
    const source = waiting()
    const stream = new PassThrough()
    const sending = assert.rejects(source.send(stream, { answers: true }), failure('ERR_MACHINE_STREAM'))
    const oneWay = new PassThrough().wrap(stream)
    const readable = Readable.from(oneWay)
    await assert.rejects(
      receiveMachine(readable, { kvm }),
      failure('ERR_MACHINE_STREAM', /waits for answers/),
    )
    stream.destroy()
    await sending
    await assertAlive(source)
  })
})

describe('a stream that breaks', () => {
  test('leaves the guest at the source, wherever it is cut, and nothing at the destination', async () => {
    using host = new Host()
    const source = waiting()
    // Of the whole stream, without what comes after the guest was given away.
    const total = 12 + (await lengthOf(source))
    for (let cut = 0; cut < 50; cut++) {
      const place = Math.floor((total * cut) / 50)
      const { sent, received } = await move(source, host.kvm, ({ out }) => (out.limit = place))
      assert.ok(failure('ERR_MACHINE_STREAM')(reasonOf(sent)), `${place}: ${String(reasonOf(sent))}`)
      assert.ok(failure('ERR_MACHINE_STREAM')(reasonOf(received)), `${place}: ${String(reasonOf(received))}`)
      assert.equal(host.open, 0)
      assert.equal(source.vm.vcpus[0]!.idle, false)
    }
    await assertAlive(source)
  })

  test('leaves the guest at the source when the answers are cut before the last', async () => {
    using host = new Host()
    const source = waiting()
    for (const limit of [0, 5, 12, 20]) {
      const { sent, received } = await move(source, host.kvm, ({ back }) => (back.limit = limit))
      assert.ok(failure('ERR_MACHINE_STREAM')(reasonOf(sent)))
      assert.ok(failure('ERR_MACHINE_STREAM')(reasonOf(received)))
      assert.equal(host.open, 0)
    }
    await assertAlive(source)
  })

  test('leaves the guest standing still if nobody can know where it runs, until it is known', async () => {
    using host = new Host()
    const source = waiting()
    // Its last frame does not arrive.
    const total = await lengthOf(source, true)
    const lost = await move(source, host.kvm, ({ out }) => (out.limit = total - 6))
    assert.ok(failure('ERR_MACHINE_UNCERTAIN', /resume\(\) it/)(reasonOf(lost.sent)))
    assert.equal(lost.received.status, 'rejected')
    assert.equal(host.open, 0)
    assert.equal(source.vm.vcpus[0]!.idle, true)
    source.resume()
    // The answer to it does not arrive.
    const gone = await move(source, host.kvm, ({ back }) => (back.limit = 24))
    assert.ok(failure('ERR_MACHINE_UNCERTAIN')(reasonOf(gone.sent)))
    assert.equal(source.vm.vcpus[0]!.idle, true)
    await source.close()
    await assertAlive(machineOf(gone.received))
  })

  test('is found when a bit of it has changed', async () => {
    using host = new Host()
    const source = waiting()
    const total = await lengthOf(source)
    for (const part of [0, 0.2, 0.5, 0.7, 0.999]) {
      const flipped = Math.floor(total * part)
      const { sent, received } = await move(source, host.kvm, ({ out }) => (out.flipped = flipped))
      assert.ok(failure('ERR_MACHINE_STREAM')(reasonOf(received)))
      const reason = reasonOf(sent)
      assert.ok(reason instanceof MachineError, String(reason))
      assert.equal(host.open, 0)
    }
    await assertAlive(source)
  })

  test('is given up when the other side stalls', async () => {
    const source = waiting()
    const { here } = duplexPair()
    await assert.rejects(
      source.send(here, { timeout: 50 }),
      failure('ERR_MACHINE_STREAM', /nothing came for 50 ms/),
    )
    assert.equal(here.destroyed, true)
    const { there } = duplexPair()
    await assert.rejects(
      receiveMachine(there, { kvm, timeout: 50 }),
      failure('ERR_MACHINE_STREAM', /nothing came/),
    )
    const full = new Writable({ write: (_chunk, _encoding, done) => done(new Error('disk full')) })
    await assert.rejects(source.send(full), failure('ERR_MACHINE_STREAM', /disk full/))
    await assertAlive(source)
  })
})

describe('a machine', () => {
  test('that ends while it is sent is not moved', async () => {
    for (const [call_, what] of [
      [(machine: Machine) => void machine.close(), 'closed'],
      [(machine: Machine) => void call(machine, SYSTEM_OFF), 'off'],
      [(machine: Machine) => void call(machine, SYSTEM_RESET), 'reset'],
    ] as const) {
      const source = waiting({ reboot: false })
      source.vm.memory.write(START + 0x10_0000n, randomFillSync(new Uint8Array(1 << 20)))
      let isCalled = false
      const slow = new Writable({
        highWaterMark: 1 << 12,
        write: (_chunk, _encoding, done) => {
          if (!isCalled) call_(source)
          isCalled = true
          setTimeout(done, 20)
        },
      })
      await assert.rejects(source.send(slow), failure('ERR_MACHINE_ENDED'))
      assert.equal(await source.ended, what)
      await assert.rejects(source.send(new PassThrough()), failure('ERR_MACHINE_ENDED'))
    }
  })

  test('goes on when its disks cannot be copied', async () => {
    const source = waiting()
    await assert.rejects(
      source.send(new PassThrough({ highWaterMark: 1 << 24 }), {
        whileStopped: () => Promise.reject(new Error('no room')),
      }),
      /^Error: no room$/,
    )
    await assertAlive(source)
  })

  test('is sent once at a time', async () => {
    const source = waiting()
    const { here, there } = duplexPair()
    const sending = source.send(here)
    await assert.rejects(source.send(new PassThrough()), failure('ERR_MACHINE_SEND', /already/))
    const machine = await receiveMachine(there, { kvm })
    await sending
    await assertAlive(machine)
  })

  test('with memory of another kind is not sent', async () => {
    const memory = kvm.createMemory(0x1_0000)
    const source = waiting({ configure: (vm) => vm.mapMemory(1, { address: 0x9000_0000n, memory }) })
    await assert.rejects(
      source.send(new PassThrough()),
      failure('ERR_MACHINE_SEND', /expected slot 0 alone, found 0, \d+$/),
    )
    await assertAlive(source)
    memory.close()
  })

  test('stands still between pause and resume', async () => {
    const machine = waiting({ smp: 2 })
    await Promise.all([machine.pause(), machine.pause()])
    assert.deepEqual(
      machine.vm.vcpus.map(({ idle }) => idle),
      [true, true],
    )
    machine.resume()
    machine.resume()
    const overtaken = machine.pause()
    machine.resume()
    await overtaken
    await assertAlive(machine)
    await assert.rejects(machine.pause(), failure('ERR_MACHINE_ENDED', /has ended \(off\)/))
  })

  for (const [wrong, error] of [
    [{ rounds: 0 }, RangeError],
    [{ rounds: '1' }, TypeError],
    [{ downtime: -1 }, RangeError],
    [{ timeout: '1' }, TypeError],
    [{ answers: 1 }, TypeError],
    [{ continues: 1 }, TypeError],
    [{ answers: true, continues: true }, RangeError],
    [{ whileStopped: 1 }, TypeError],
    [{ colour: 'red' }, TypeError],
  ] as const) {
    test(`is not sent with ${JSON.stringify(wrong)}`, async () => {
      const machine = waiting()
      await assert.rejects(machine.send(duplexPair().here, wrong as never), error)
      await machine.close()
    })
  }

  test('is neither sent to nor received from anything but streams', async () => {
    const machine = waiting()
    await assert.rejects(machine.send('file' as never), TypeError)
    const writable = new Writable({ write: () => undefined })
    await assert.rejects(machine.send(writable, { answers: true }), TypeError)
    await machine.close()
    await assert.rejects(receiveMachine('file' as never), TypeError)
    for (const wrong of [{ accept: 1 }, { rules: 1 }, { timeout: '1' }, { disks: 'x' }, { memory: 5 }]) {
      await assert.rejects(receiveMachine(new PassThrough(), wrong as never), TypeError)
    }
  })
})
