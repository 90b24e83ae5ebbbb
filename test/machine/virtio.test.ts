/** The virtio devices with a driver that keeps the rules; test/machine/hostile-queues.test.ts has one that does not. */
import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setImmediate as nextTurn } from 'node:timers/promises'
import * as fc from 'fast-check'
import { afterAll, describe, test } from 'vitest'
import { type Disk, fileDisk, memoryDisk } from '../../lib/machine/disk.js'
import { MachineError } from '../../lib/machine/errors.js'
import { VirtioBlock } from '../../lib/machine/virtio/block.js'
import { VirtioConsole } from '../../lib/machine/virtio/console.js'
import { VirtioRng } from '../../lib/machine/virtio/rng.js'
import { RAM_BASE } from '../../lib/machine/memory-map.js'
import { Driver } from './virtio-driver.js'

describe('the registers of a device', () => {
  test('say what it is', () => {
    const driver = new Driver(new VirtioRng())
    assert.deepEqual(
      [0, 4, 8].map((offset) => driver.read(offset)),
      [0x7472_6976, 2, 4],
    )
    driver.write(0x14, 1)
    assert.equal(driver.read(0x10), 1)
    driver.write(0x14, 2)
    assert.equal(driver.read(0x10), 0)
    assert.equal(driver.read(0x34), 256)
    driver.write(0x30, 1)
    assert.equal(driver.read(0x34), 0)
    assert.equal(driver.read(0xb0), 0xffff_ffff)
  })

  test('refuse features that were not offered, and a driver without VERSION_1', () => {
    const driver = new Driver(new VirtioRng())
    for (const [low, high, accepted] of [
      [0, 1, true],
      [1, 1, false],
      [0, 0, false],
      [0, 3, false],
    ] as const) {
      driver.write(0x70, 0)
      driver.write(0x24, 0)
      driver.write(0x20, low)
      driver.write(0x24, 1)
      driver.write(0x20, high)
      driver.write(0x70, 11)
      assert.equal((driver.read(0x70) & 8) !== 0, accepted)
    }
  })

  test('serve nothing before the driver is ready, and nothing after a reset', () => {
    const driver = new Driver(new VirtioRng())
    driver.start()
    driver.write(0x70, 0)
    driver.send(0, [4])
    assert.deepEqual(driver.received(0), [])
    assert.equal(driver.read(0x44), 0)
  })

  test('serve what was requested before the driver was ready, once it is', async () => {
    const driver = new Driver(new VirtioRng())
    driver.start(0, 11)
    driver.send(0, [4])
    assert.deepEqual(driver.received(0), [])
    driver.write(0x70, 15)
    await nextTurn()
    assert.deepEqual([driver.received(0), driver.level], [[4], true])
  })

  test('interrupt until that is acknowledged, unless the driver wants none', () => {
    const driver = new Driver(new VirtioRng())
    driver.start()
    driver.send(0, [4])
    assert.equal(driver.level, true)
    assert.equal(driver.read(0x60), 1)
    driver.write(0x64, 1)
    assert.equal(driver.level, false)
    driver.ram.store16(driver.places(0).available, 1)
    driver.send(0, [4])
    assert.equal(driver.level, false)
    assert.deepEqual(driver.received(0), [4, 4])
  })

  test('serve a queue once for all notifications that were posted', async () => {
    let calls = 0
    const device = new VirtioRng()
    const driver = new Driver(device)
    const serve = device.serve.bind(device)
    device.serve = (index, queue) => (calls++, serve(index, queue))
    driver.start()
    driver.send(0, [4], false)
    for (const queue of [0, 0, 7, 0xffff_ffff, 0]) driver.port.notify(queue)
    assert.deepEqual(driver.received(0), [])
    await nextTurn()
    assert.deepEqual([driver.received(0), calls], [[4], 1])
    driver.port.notify(0)
    driver.port.stop()
    await nextTurn()
    assert.equal(calls, 1)
  })

  test('report an error of a device that no access of the driver can receive', async () => {
    const failures: unknown[] = []
    const error = new Error('of a listener')
    const device = new VirtioConsole(() => {
      throw error
    })
    const driver = new Driver(device, undefined, (failure) => failures.push(failure))
    driver.start()
    driver.send(1, [Buffer.from('a')], false)
    driver.port.notify(1)
    await nextTurn()
    assert.deepEqual(failures, [error])
  })

  test('fix what an interrupt is about, as it is read', () => {
    const fixed: (number | undefined)[] = []
    const driver = new Driver(new VirtioRng(), (value) => fixed.push(value))
    driver.start()
    driver.send(0, [4])
    driver.send(0, [4])
    driver.write(0x64, 1)
    assert.deepEqual(fixed, [0, 1, 0])
  })

  test('go round the end of the queue, and of its counters', () => {
    const driver = new Driver(new VirtioRng())
    driver.start()
    for (let count = 0; count < 0x1_0010; count++) driver.send(0, [1])
    assert.equal(driver.port.failure, undefined)
    assert.equal(driver.ram.load16(driver.places(0).used + 2), 0x10)
  })
})

test('the source of random numbers fills buffers, and no two alike', () => {
  const driver = new Driver(new VirtioRng())
  driver.start()
  const [first, second] = driver.send(0, [64, 64]) as [number, number]
  assert.deepEqual(driver.received(0), [128])
  const bytes = [first, second].map((address) => Buffer.from(driver.ram.at(address, 64)).toString('hex'))
  assert.notEqual(bytes[0], bytes[1])
  assert.ok(bytes.every((text) => text !== 'ee'.repeat(64)))
})

describe('the console', () => {
  test('passes on what the guest sends', () => {
    const sent: string[] = []
    const driver = new Driver(new VirtioConsole((bytes) => sent.push(Buffer.from(bytes).toString())))
    driver.start()
    driver.send(1, [Buffer.from('hello '), Buffer.from('there')])
    assert.equal(sent.join(''), 'hello there')
    assert.deepEqual(driver.received(1), [0])
  })

  test('leaves what the guest sends in the queue while it is held', () => {
    const sent: string[] = []
    const device = new VirtioConsole((bytes) => {
      sent.push(Buffer.from(bytes).toString())
      if (sent.length === 2) device.hold(true)
    })
    const driver = new Driver(device)
    driver.start()
    driver.send(1, [Buffer.from('a')])
    for (let count = 0; count < 3; count++) driver.send(1, [Buffer.from('b')])
    assert.deepEqual([sent, driver.received(1).length], [['a', 'b'], 2])
    device.hold(false)
    assert.deepEqual([sent, driver.received(1).length], [['a', 'b', 'b', 'b'], 2])
  })

  test('gives the guest input as soon as it has both input and a buffer', () => {
    const device = new VirtioConsole(() => undefined)
    const driver = new Driver(device)
    driver.start()
    device.receive(Buffer.from('abc'))
    const [address] = driver.send(0, [2]) as [number]
    assert.equal(Buffer.from(driver.ram.at(address, 2)).toString(), 'ab')
    const [next] = driver.send(0, [10]) as [number]
    assert.equal(Buffer.from(driver.ram.at(next, 1)).toString(), 'c')
    assert.deepEqual(driver.received(0), [2, 1])
    driver.send(0, [10])
    assert.deepEqual(driver.received(0), [])
    device.receive(Buffer.from('d'))
    assert.deepEqual(driver.received(0), [1])
  })

  test('loses and doubles no input, whatever the pieces and buffers', () => {
    const bytes = fc.uint8Array({ minLength: 1, maxLength: 30 })
    fc.assert(
      fc.property(
        fc.array(bytes),
        fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1 }),
        (pieces, sizes) => {
          const device = new VirtioConsole(() => undefined)
          const driver = new Driver(device)
          driver.start()
          for (const piece of pieces) device.receive(piece)
          const got: number[] = []
          const total = pieces.reduce((sum, piece) => sum + piece.length, 0)
          for (let count = 0; got.length < total; count++) {
            const [address] = driver.send(0, [sizes[count % sizes.length]!]) as [number]
            const [written] = driver.received(0) as [number]
            got.push(...driver.ram.at(address, written))
          }
          assert.deepEqual(Buffer.from(got), Buffer.concat(pieces))
        },
      ),
      { numRuns: 50 },
    )
  })
})

function header(type: number, sector: number | bigint): Buffer {
  const bytes = Buffer.alloc(16)
  bytes.writeUInt32LE(type)
  bytes.writeBigUInt64LE(BigInt(sector), 8)
  return bytes
}

function blockDriver(disk: Disk): Driver {
  const driver = new Driver(new VirtioBlock(disk))
  driver.start(disk.readonly ? 0x220 : 0x200)
  return driver
}

/** Of four sectors, no two alike. */
function content(): Uint8Array {
  return Uint8Array.from({ length: 2048 }, (_, index) => index % 251)
}

describe('a disk', () => {
  test('tells its size in sectors', () => {
    const driver = blockDriver(memoryDisk('d', content(), false))
    assert.deepEqual([driver.read(0x100), driver.read(0x104)], [4, 0])
    assert.equal(driver.port.read(0x108, 2) + driver.port.read(0x10a, 1) * 0x1_0000, 0x1_0000)
  })

  test('reads into several buffers, and writes from several', () => {
    const bytes = content()
    const driver = blockDriver(memoryDisk('d', bytes, false))
    const [, first, second, status] = driver.send(0, [header(0, 1), 500, 524, 1])
    assert.deepEqual(driver.received(0), [1025])
    assert.equal(driver.ram.at(status!, 1)[0], 0)
    const read = Buffer.concat([driver.ram.at(first!, 500), driver.ram.at(second!, 524)])
    assert.deepEqual([...read], [...bytes.subarray(512, 1536)])

    const [, , , done] = driver.send(0, [
      header(1, 3),
      new Uint8Array(100).fill(7),
      new Uint8Array(412).fill(8),
      1,
    ])
    assert.equal(driver.ram.at(done!, 1)[0], 0)
    assert.deepEqual(
      [bytes[1535], bytes[1536], bytes[1635], bytes[1636], bytes[2047]],
      [1535 % 251, 7, 7, 8, 8],
    )
  })

  test('takes a header and a status that lie anywhere among the buffers', () => {
    const driver = blockDriver(memoryDisk('d', content(), false))
    const head = header(0, 0)
    const [, , data] = driver.send(0, [head.subarray(0, 5), head.subarray(5), 513])
    assert.deepEqual([...driver.ram.at(data!, 513)], [...content().subarray(0, 512), 0])
  })

  for (const [name, parts, expected] of [
    ['a sector behind its end', [header(0, 4), 512, 1], 1],
    ['a sector far behind every end', [header(0, (1n << 64n) - 1n), 512, 1], 1],
    ['half a sector', [header(0, 0), 100, 1], 1],
    ['a write over its end', [header(1, 3), new Uint8Array(1024), 1], 1],
    ['a request nobody knows', [header(99, 0), 1], 2],
  ] as const) {
    test(`answers ${name} with ${expected}, and lives on`, () => {
      const bytes = content()
      const driver = blockDriver(memoryDisk('d', bytes, false))
      const status = driver.send(0, parts).at(-1)!
      assert.equal(driver.ram.at(status, 1)[0], expected)
      assert.equal(driver.port.failure, undefined)
      assert.deepEqual(bytes, content())
    })
  }

  test('gives its name', () => {
    const driver = blockDriver(memoryDisk('a name of more than twenty letters', content(), false))
    const [, id, status] = driver.send(0, [header(8, 0), 20, 1])
    assert.equal(Buffer.from(driver.ram.at(id!, 20)).toString(), 'a name of more than ')
    assert.equal(driver.ram.at(status!, 1)[0], 0)
  })

  test('that can only be read says so, and refuses writes', () => {
    const bytes = content()
    const driver = blockDriver(memoryDisk('d', bytes, true))
    driver.write(0x14, 0)
    assert.equal(driver.read(0x10) & 0x20, 0x20)
    const [, , status] = driver.send(0, [header(1, 0), new Uint8Array(512), 1])
    assert.equal(driver.ram.at(status!, 1)[0], 1)
    assert.deepEqual(bytes, content())
  })
})

describe('a disk in a file', () => {
  const folder = mkdtempSync(join(tmpdir(), 'kvm-arm64-disk-'))
  afterAll(() => rmSync(folder, { recursive: true }))

  test('holds what was written and flushed', () => {
    const path = join(folder, 'a.img')
    writeFileSync(path, new Uint8Array(4096))
    const disk = fileDisk(path, false)
    const driver = blockDriver(disk)
    driver.send(0, [header(1, 2), new Uint8Array(512).fill(0x61), 1])
    const [, status] = driver.send(0, [header(4, 0), 1])
    assert.equal(driver.ram.at(status!, 1)[0], 0)
    const [, data] = driver.send(0, [header(0, 2), 512, 1])
    assert.equal(driver.ram.at(data!, 1)[0], 0x61)
    disk.close()
    assert.equal(readFileSync(path).indexOf(0x61), 1024)
  })

  test('answers with an error when the file system is full, and goes on', () => {
    const bytes = new Uint8Array(4096)
    const full: Disk = {
      ...memoryDisk('full', bytes, false),
      write: () => {
        throw Object.assign(new Error('ENOSPC: no space left on device'), { code: 'ENOSPC' })
      },
    }
    const driver = blockDriver(full)
    const [, , status] = driver.send(0, [header(1, 0), new Uint8Array(512), 1])
    assert.equal(driver.ram.at(status!, 1)[0], 1)
    const [, , next] = driver.send(0, [header(0, 0), 512, 1])
    assert.equal(driver.ram.at(next!, 1)[0], 0)
  })

  test('answers with an error when the file has become shorter', () => {
    const path = join(folder, 'b.img')
    writeFileSync(path, new Uint8Array(4096))
    const disk = fileDisk(path, true)
    truncateSync(path, 512)
    const driver = blockDriver(disk)
    const [, , status] = driver.send(0, [header(0, 4), 512, 1])
    assert.equal(driver.ram.at(status!, 1)[0], 1)
    disk.close()
  })

  test('is refused where it cannot be a disk', () => {
    const path = join(folder, 'c.img')
    for (const size of [0, 511]) {
      writeFileSync(path, new Uint8Array(size))
      assert.throws(() => fileDisk(path, false), isDiskError(/multiple of 512/))
      assert.throws(() => memoryDisk('m', new Uint8Array(size), false), isDiskError(/multiple of 512/))
    }
    assert.throws(() => fileDisk(join(folder, 'none'), false), isDiskError(/cannot be opened: ENOENT/))
    for (const place of [folder, '/dev/zero']) {
      assert.throws(() => fileDisk(place, true), isDiskError(/cannot be opened: not a regular file/))
    }
  })
})

function isDiskError(problem: RegExp): (error: unknown) => boolean {
  return (error) =>
    error instanceof MachineError && error.code === 'ERR_MACHINE_DISK' && problem.test(error.message)
}

describe('a device whose machine moves', () => {
  test('goes on in its queue where it was', async () => {
    const [before, after] = [new Uint8Array(1024), new Uint8Array(1024)]
    const driver = new Driver(new VirtioBlock(memoryDisk('a', before, false)))
    driver.start()
    // More than the queue has descriptors.
    for (let count = 0; count < 20; count++)
      driver.send(0, [header(1, 0), new Uint8Array(512).fill(count), 1])
    assert.equal(driver.received(0).length, 20)
    assert.equal(driver.level, true)
    driver.move(new VirtioBlock(memoryDisk('a', after, false)))
    assert.equal(driver.read(0x60), 1)
    driver.write(0x64, 1)
    assert.equal(driver.level, false)
    driver.send(0, [header(1, 1), new Uint8Array(512).fill(7), 1])
    assert.deepEqual([driver.received(0), driver.level], [[1], true])
    await nextTurn()
    assert.deepEqual([before[0], before[512], after[0], after[512]], [19, 0, 0, 7])
  })

  test('serves at its destination what was requested while it stood still', async () => {
    const driver = new Driver(new VirtioRng())
    driver.start()
    driver.port.pause()
    driver.send(0, [4])
    driver.port.notify(0)
    await nextTurn()
    assert.deepEqual(driver.received(0), [])
    driver.move(new VirtioRng())
    await nextTurn()
    assert.deepEqual(driver.received(0), [4])
  })

  test('stays broken', () => {
    const driver = new Driver(new VirtioBlock(memoryDisk('a', new Uint8Array(512), false)))
    driver.start()
    driver.send(0, [new Uint8Array(3), 1])
    const { message } = driver.port.failure!
    driver.move(new VirtioBlock(memoryDisk('a', new Uint8Array(512), false)))
    assert.equal(driver.port.failure!.message, message)
    assert.equal(driver.read(0x70) & 0x40, 0x40)
    driver.start()
    assert.equal(driver.port.failure, undefined)
  })

  test('keeps what a console has yet to receive', () => {
    const console = new VirtioConsole(() => undefined)
    console.receive(Buffer.from('one '))
    console.receive(Buffer.from('two'))
    assert.equal(Buffer.from(console.waiting).toString(), 'one two')
  })

  test('refuses a state that it cannot be in', () => {
    const driver = new Driver(new VirtioRng())
    driver.start()
    const state = driver.port.save()
    const [queue] = state.queues
    const cases: [Partial<typeof state>, RegExp][] = [
      [{ type: 2 }, /of a virtio device of type 2, not 4/],
      [{ accepted: '0x100000020' }, /features 0x20, which this device lacks/],
      [{ setups: [] }, /has 0 queues, and the device 1/],
      [{ queues: [{ ...queue!, index: 1 }] }, /no queue 1/],
      [{ queues: [{ ...queue!, size: 3 }] }, /cannot have 3 descriptors/],
      [{ queues: [{ ...queue!, used: 2 ** 60 }] }, /cannot be at 0x1000000000000000/],
    ]
    for (const [wrong, problem] of cases) {
      const { port } = new Driver(new VirtioRng())
      assert.throws(
        () => port.restore({ ...state, ...wrong }),
        (error) => error instanceof RangeError && problem.test(error.message),
      )
    }
  })

  test('logs which pages it writes, and none that it reads', () => {
    const driver = new Driver(new VirtioBlock(memoryDisk('a', new Uint8Array(8192), false)))
    driver.start()
    driver.ram.logWrites(0x1000)
    const [head, data] = driver.send(0, [header(0, 0), 8192, 1])
    const { used } = driver.places(0)
    // The driver itself writes through the same object here; the guest's own writes are KVM's to log.
    const written = new Set(driver.ram.takeWritten())
    assert.ok(written.has(pageOf(used)))
    for (const place of [data!, data! + 4096, data! + 8191]) assert.ok(written.has(pageOf(place)))
    assert.equal(pageOf(head!), pageOf(data!))
    assert.deepEqual([...driver.ram.takeWritten()], [])
    driver.ram.writableAt(RAM_BASE, 0)
    assert.deepEqual([...driver.ram.takeWritten()], [])
    driver.ram.logWrites(undefined)
    driver.ram.write32(RAM_BASE, 1)
    assert.deepEqual([...driver.ram.takeWritten()], [])
  })
})

function pageOf(address: number): number {
  return (address - RAM_BASE) >> 12
}
