/** The frames of the stream by which a machine moves: whatever a stream brings, an error of ours, in bounded time and memory. */
import assert from 'node:assert/strict'
import { PassThrough, Readable, Writable } from 'node:stream'
import * as fc from 'fast-check'
import { describe, test } from 'vitest'
import { MachineError } from '../../lib/machine/errors.js'
import { FrameReader, frameTypes, FrameWriter } from '../../lib/machine/frames.js'

function isBroken(problem: RegExp): (error: unknown) => boolean {
  return (error) =>
    error instanceof MachineError && error.code === 'ERR_MACHINE_STREAM' && problem.test(error.message)
}

async function written(pieces: readonly Uint8Array[]): Promise<Buffer> {
  const stream = new PassThrough({ highWaterMark: 1 << 24 })
  const writer = new FrameWriter(stream, 0)
  await writer.begin()
  for (const piece of pieces) await writer.write('pages', piece)
  await writer.end()
  assert.equal(writer.written, stream.readableLength)
  return stream.read() as Buffer
}

/** Reads to the end; `size` is that of the chunks that come. */
async function read(bytes: Buffer, size = bytes.length): Promise<Buffer[]> {
  const chunks: Buffer[] = []
  for (let at = 0; at < bytes.length; at += size) chunks.push(bytes.subarray(at, at + size))
  const reader = new FrameReader(Readable.from(chunks), 1000)
  await reader.begin()
  const found: Buffer[] = []
  for (;;) {
    const { type, bytes: piece } = await reader.next(['pages', 'end'])
    if (type === 'end') return found
    found.push(piece)
  }
}

const pieces = fc.array(fc.uint8Array({ minLength: 1, maxLength: 100 }), { maxLength: 8 })

describe('a stream of frames', () => {
  test('brings what was written, in chunks of any size', async () => {
    await fc.assert(
      fc.asyncProperty(pieces, fc.integer({ min: 1, max: 300 }), async (sent, size) => {
        const found = await read(await written(sent), size)
        assert.deepEqual(
          found.map((piece) => piece.toString('hex')),
          sent.map((piece) => Buffer.from(piece).toString('hex')),
        )
      }),
      { numRuns: 50 },
    )
  })

  test('is refused when it is cut anywhere', async () => {
    await fc.assert(
      fc.asyncProperty(
        pieces,
        fc.double({ min: 0, max: 1, noNaN: true, maxExcluded: true }),
        async (sent, place) => {
          const bytes = await written(sent)
          await assert.rejects(read(bytes.subarray(0, Math.floor(bytes.length * place))), isBroken(/ends/))
        },
      ),
      { numRuns: 50 },
    )
  })

  test('is refused when any bit of it has changed', async () => {
    const bytes = await written([Buffer.from('one'), Buffer.from('two')])
    for (let bit = 0; bit < 8 * bytes.length; bit++) {
      const damaged = Buffer.from(bytes)
      damaged[bit >> 3]! ^= 1 << (bit & 7)
      await assert.rejects(read(damaged), isBroken(/./))
    }
  })

  test('is refused when a whole frame is missing, comes twice or elsewhere', async () => {
    const [first, second] = [Buffer.from('one'), Buffer.from('two')]
    const bytes = await written([first, second])
    const frame = 12 + 3
    const [head, one, two, end] = [0, 8, 8 + frame, 8 + 2 * frame].map((start, index, starts) =>
      bytes.subarray(start, starts[index + 1]),
    ) as [Buffer, Buffer, Buffer, Buffer]
    for (const parts of [
      [head, two, end],
      [head, one, one, two, end],
      [head, two, one, end],
    ]) {
      await assert.rejects(read(Buffer.concat(parts)), isBroken(/digest differs/))
    }
  })

  test('is refused for anything else at its start', async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 100 }), async (bytes) => {
        await assert.rejects(read(Buffer.from(bytes)), isBroken(/expected KVMARM64|ends before/))
      }),
      { numRuns: 50 },
    )
  })

  test('is refused for anything else behind its start', async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 100 }), async (bytes) => {
        await assert.rejects(read(Buffer.concat([Buffer.from('KVMARM64'), bytes])), isBroken(/./))
      }),
      { numRuns: 200 },
    )
  })

  test('is refused for a frame longer than its type can be, before it comes', async () => {
    const head = Buffer.alloc(12)
    head.writeUInt8(frameTypes.pages, 0)
    head.writeUInt32LE(0xffff_ffff, 4)
    await assert.rejects(
      read(Buffer.concat([Buffer.from('KVMARM64'), head])),
      isBroken(/of 4294967295 bytes: at most/),
    )
  })

  test('names the frame that comes where another should', async () => {
    const stream = new PassThrough()
    await new FrameWriter(stream, 0).write('go')
    stream.end()
    await assert.rejects(
      new FrameReader(stream, 0).next(['ready', 'refused']),
      isBroken(/holds go where ready or refused should/),
    )
  })

  test('is refused as text, and when nothing comes or nothing is taken', async () => {
    const text = new PassThrough({ encoding: 'utf8' })
    text.write('KVMARM64')
    await assert.rejects(new FrameReader(text, 1000).begin(), isBroken(/do not set an encoding/))
    await assert.rejects(new FrameReader(new PassThrough(), 20).begin(), isBroken(/nothing came for 20 ms/))
    const stuck = new Writable({ highWaterMark: 1, write: () => undefined })
    await assert.rejects(new FrameWriter(stuck, 20).begin(), isBroken(/took nothing for 20 ms/))
  })

  test('passes on why the stream broke', async () => {
    const stream = new PassThrough({ highWaterMark: 1 })
    stream.on('error', () => undefined)
    const writing = new FrameWriter(stream, 1000).begin()
    const reading = assert.rejects(new FrameReader(stream, 1000).next(['go']), isBroken(/unplugged/))
    stream.destroy(new Error('unplugged'))
    await assert.rejects(writing, isBroken(/unplugged/))
    await reading
    const closed = new PassThrough()
    closed.destroy()
    await assert.rejects(new FrameWriter(closed, 0).begin(), isBroken(/closed before all was sent/))
  })

  test('takes no more than the reader wants', async () => {
    let given = 0
    const source = new Readable({
      highWaterMark: 1 << 16,
      read(): void {
        given += 1 << 16
        this.push(Buffer.alloc(1 << 16, 'KVMARM64'))
      },
    })
    await new FrameReader(source, 0).begin()
    await new Promise(setImmediate)
    assert.ok(given <= 4 << 16, `${given} bytes`)
  })
})
