import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { describe, it } from 'node:test'
import { kernelBackend } from '../../lib/kernel/index.js'

/** The CPUs this thread may run on, as Linux lists them. */
function allowed(): string {
  return /^Cpus_allowed_list:\s*(\S+)$/m.exec(readFileSync('/proc/thread-self/status', 'utf8'))![1]!
}

describe('The calling thread', () => {
  it('is kept on the lowest CPU it may run on, until it is released', () => {
    const before = allowed()
    const pinned = kernelBackend.cpus!.pin()
    assert.ok(typeof pinned !== 'number')
    assert.equal(allowed(), String(pinned.cpu))
    assert.equal(Number.parseInt(before, 10), pinned.cpu)
    pinned.release()
    assert.equal(allowed(), before)
  })
})
