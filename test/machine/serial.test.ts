import assert from 'node:assert/strict'
import * as fc from 'fast-check'
import { beforeEach, describe, test } from 'vitest'
import { SerialPort } from '../../lib/machine/serial.js'

let sent: number[]
let levels: boolean[]
let fixed: (number | undefined)[]
let port: SerialPort

beforeEach(() => {
  sent = []
  levels = []
  fixed = []
  port = new SerialPort(
    (byte) => sent.push(byte),
    (level) => levels.push(level),
    (value) => fixed.push(value),
  )
})

function write(offset: number, value: number): void {
  port.write(offset, 1, value)
}

describe('a serial port', () => {
  test('sends each byte at once', () => {
    for (const byte of Buffer.from('hi')) write(0, byte)
    assert.deepEqual(sent, [...Buffer.from('hi')])
    assert.equal(port.read(5), 0x60)
  })

  test('interrupts when it may send again, until that is acknowledged', () => {
    write(1, 2)
    assert.deepEqual(levels, [true])
    assert.equal(port.read(2), 2)
    assert.deepEqual(levels, [true, false])
    assert.equal(port.read(2), 1)
    write(0, 65)
    assert.deepEqual(levels, [true, false, true])
  })

  test('interrupts for input until all of it is read', () => {
    write(2, 1)
    write(1, 1)
    port.receive(Buffer.from('abc'))
    assert.deepEqual(levels, [true])
    assert.equal(port.read(2), 0xc4)
    const got = []
    while ((port.read(5) & 1) !== 0) got.push(port.read(0))
    assert.deepEqual(Buffer.from(got).toString(), 'abc')
    assert.deepEqual(levels, [true, false])
  })

  test('keeps what comes early until the guest listens, by interrupts or by polling', () => {
    port.receive(Buffer.from('early'))
    for (const control of [1, 3, 7]) write(2, control)
    for (const offset of [5, 0, 2, 6]) port.read(offset)
    assert.equal(port.read(5) & 1, 0)
    assert.equal(port.read(5) & 1, 1)
    assert.equal(port.read(0), 'e'.charCodeAt(0))
    write(1, 1)
    assert.deepEqual(levels, [true])
  })

  test('keeps input beyond its FIFO, which alone the guest can clear', () => {
    write(2, 1)
    write(1, 1)
    port.receive(Buffer.from('0123456789abcdefGHIJ'))
    write(2, 3)
    const got = []
    while ((port.read(5) & 1) !== 0) got.push(port.read(0))
    assert.equal(Buffer.from(got).toString(), 'GHIJ')
  })

  test('has the divisor latch in place of two registers', () => {
    write(3, 0x83)
    write(0, 0x34)
    write(1, 0x12)
    assert.deepEqual([port.read(0), port.read(1)], [0x34, 0x12])
    write(3, 3)
    assert.equal(port.read(1), 0)
    assert.deepEqual(sent, [])
  })

  test('passes the test by loopback with which Linux finds out what it is', () => {
    write(4, 0x1a)
    assert.equal(port.read(6) & 0xf0, 0x90)
    write(0, 0x55)
    assert.equal(port.read(0), 0x55)
    assert.deepEqual(sent, [])
  })

  test('has a scratch register, and nothing behind its eight', () => {
    write(7, 0xa5)
    assert.equal(port.read(7), 0xa5)
    assert.equal(port.read(8), 0)
  })

  test('fixes its line status while there is no input, and only then', () => {
    assert.deepEqual(fixed, [0x60])
    write(1, 1)
    port.receive(Buffer.from('ab'))
    assert.deepEqual(fixed, [0x60, undefined])
    port.read(0)
    assert.equal(fixed.length, 2)
    port.read(0)
    assert.deepEqual(fixed, [0x60, undefined, 0x60])
    assert.equal(port.read(5), 0x60)
  })

  test('unfixes it in loopback, where what is sent comes back', () => {
    write(4, 0x10)
    write(0, 65)
    assert.deepEqual([fixed, port.read(5), port.read(0)], [[0x60, undefined], 0x61, 65])
    write(4, 0)
    assert.deepEqual(fixed, [0x60, undefined, 0x60])
  })

  test('finds a guest that polls, since input that waits unfixes the line status', () => {
    port.receive(Buffer.from('a'))
    assert.deepEqual(fixed, [0x60, undefined])
    port.read(5)
    assert.equal(port.read(5) & 1, 1)
  })

  test('reports while it is held that it cannot send, and loses what is sent without end', () => {
    write(1, 2)
    port.read(2)
    port.hold(true)
    assert.deepEqual([port.read(5), fixed.at(-1)], [0, 0])
    write(0, 65)
    assert.equal(port.read(2), 1)
    for (let count = 0; count < 0x2_0000; count++) write(0, 66)
    assert.equal(sent.length, 0x1_0000)
    levels = []
    port.hold(false)
    assert.deepEqual([port.read(5), fixed.at(-1), levels], [0x60, 0x60, [true]])
    write(0, 67)
    assert.equal(sent.at(-1), 67)
  })

  test('loses no input that the guest reads, however it comes', () => {
    const pieces = fc.array(fc.uint8Array({ maxLength: 40 }), { maxLength: 8 })
    fc.assert(
      fc.property(pieces, fc.boolean(), (input, fifo) => {
        const fresh = new SerialPort(
          () => undefined,
          () => undefined,
        )
        fresh.write(2, 1, Number(fifo))
        fresh.write(1, 1, 1)
        const got: number[] = []
        for (const piece of input) {
          fresh.receive(piece)
          if (piece.length % 2 === 0) while ((fresh.read(5) & 1) !== 0) got.push(fresh.read(0))
        }
        while ((fresh.read(5) & 1) !== 0) got.push(fresh.read(0))
        assert.deepEqual(Buffer.from(got), Buffer.concat(input))
      }),
    )
  })

  test('takes any access and keeps its registers to a byte', () => {
    const access = fc.record({ write: fc.boolean(), offset: fc.nat(0xfff), value: fc.nat(0xffff_ffff) })
    fc.assert(
      fc.property(fc.array(access), (accesses) => {
        let level = false
        let status: number | undefined
        const fresh = new SerialPort(
          () => undefined,
          (now) => {
            assert.notEqual(now, level)
            level = now
          },
          (value) => (status = value),
        )
        for (const { write: isWrite, offset, value } of accesses) {
          if (isWrite) fresh.write(offset, 4, value)
          else assert.ok(fresh.read(offset) <= 0xff)
          if (status !== undefined) assert.equal(fresh.read(5), status)
        }
      }),
    )
  })
})

describe('a serial port whose machine moves', () => {
  interface Access {
    write: boolean
    offset: number
    value: number
    input: Uint8Array
  }
  const access: fc.Arbitrary<Access> = fc.record({
    write: fc.boolean(),
    offset: fc.integer({ min: 0, max: 8 }),
    value: fc.integer({ min: 0, max: 255 }),
    input: fc.oneof(
      { weight: 4, arbitrary: fc.constant(new Uint8Array(0)) },
      { weight: 1, arbitrary: fc.uint8Array({ maxLength: 20 }) },
    ),
  })

  /** What an access shows, and the level of the line behind it. */
  function perform(on: SerialPort, { write: isWrite, offset, value, input }: Access): number | undefined {
    on.receive(input)
    if (!isWrite) return on.read(offset)
    on.write(offset, 1, value)
    return undefined
  }

  test('goes on as if nothing had happened', () => {
    fc.assert(
      fc.property(fc.array(access), fc.array(access), (before, after) => {
        let [level, movedLevel] = [false, false]
        const [sentHere, sentThere]: [number[], number[]] = [[], []]
        const here = new SerialPort(
          (byte) => sentHere.push(byte),
          (is) => (level = is),
        )
        for (const each of before) perform(here, each)
        sentHere.length = 0
        // The interrupt controller moves too.
        movedLevel = level
        const there = new SerialPort(
          (byte) => sentThere.push(byte),
          (is) => (movedLevel = is),
        )
        there.restore(JSON.parse(JSON.stringify(here.save())) as ReturnType<SerialPort['save']>)
        for (const each of after) {
          assert.equal(perform(there, each), perform(here, each))
          assert.equal(movedLevel, level)
        }
        assert.deepEqual(sentThere, sentHere)
      }),
      { numRuns: 200 },
    )
  })

  test('can send at its destination, if it was held at its source', () => {
    write(1, 2)
    port.read(2)
    port.hold(true)
    const there = new SerialPort(
      () => undefined,
      (level) => levels.push(level),
    )
    there.restore(port.save())
    assert.equal(there.read(5), 0x60)
    assert.equal(levels.at(-1), true)
  })
})
