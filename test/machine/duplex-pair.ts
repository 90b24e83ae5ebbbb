import { Duplex } from 'node:stream'

/** One direction of a pair: what may still pass, and what has passed. */
export interface Direction {
  /** Bytes after which both ends break. */
  limit: number
  passed: number
  /** The byte whose lowest bit arrives flipped; -1 for none. */
  flipped: number
}

/** Two streams, each of which brings what the other takes, as two ends of a connection. */
export function duplexPair(): { here: Duplex; there: Duplex; out: Direction; back: Direction } {
  const out: Direction = { limit: Infinity, passed: 0, flipped: -1 }
  const back: Direction = { limit: Infinity, passed: 0, flipped: -1 }
  const ends: Duplex[] = []
  for (const [index, direction] of [out, back].entries()) {
    const other = (): Duplex => ends[1 - index]!
    const end: Duplex = new Duplex({
      highWaterMark: 1 << 16,
      read: () => undefined,
      write: (chunk: Buffer, _encoding, done) => {
        const left = direction.limit - direction.passed
        const passing = Buffer.from(chunk.subarray(0, left))
        const flipped = direction.flipped - direction.passed
        if (flipped >= 0 && flipped < passing.length) passing[flipped]! ^= 1
        direction.passed += passing.length
        if (!other().destroyed && passing.length > 0) other().push(passing)
        if (chunk.length > left) {
          for (const each of ends) each.destroy(new Error('cut'))
        }
        setImmediate(done)
      },
      final: (done) => {
        if (!other().destroyed) other().push(null)
        done()
      },
      destroy: (error, done) => {
        // As a closed connection does.
        setImmediate(() => other().destroyed || other().destroy())
        done(error)
      },
    })
    ends.push(end)
  }
  return { here: ends[0]!, there: ends[1]!, out, back }
}
