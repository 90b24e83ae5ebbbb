import assert from 'node:assert/strict'
import { it } from 'vitest'
import { bootWithTests, runInside } from './lab-hosts.js'
import type { Usage } from './soak.js'

/** What the collector may or may not have given back; ten thousand leaks of a page would be ten times this. */
const NOISE = 4 * 1024 * 1024

it('ten thousand VMs and a million reads leave no descriptor and no memory behind', async () => {
  await using lab = await bootWithTests({ kernel: '6.12', cpu: 'neoverse-n1' })
  // V8 gives its young generation 1 to 16 MiB as it sees fit, and more than the noise depends on that.
  const v8 = ['--expose-gc', '--max-semi-space-size=1']
  const { stdout } = await runInside(lab, 'node', ...v8, 'dist/test/lab-kernels/soak.js')
  const result = JSON.parse(stdout.toString()) as Record<'cycles' | 'reads', { before: Usage; after: Usage }>
  for (const [what, { before, after }] of Object.entries(result)) {
    assert.equal(after.descriptors, before.descriptors, `descriptors after the ${what}`)
    assert.ok(after.memory - before.memory < NOISE, `${what}: ${before.memory} bytes, then ${after.memory}`)
  }
})
