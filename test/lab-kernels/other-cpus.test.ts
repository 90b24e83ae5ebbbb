/** A CPU on which no host was recorded and to which nothing was tuned. */
import assert from 'node:assert/strict'
import { it } from 'vitest'
import { bootWithTests, runInside } from './lab-hosts.js'

it('answers as the simulator of its own report on a CPU that no host was recorded on', async () => {
  await using lab = await bootWithTests({ kernel: '6.1', cpu: 'a64fx' })
  const { stdout } = await runInside(lab, 'kvm-arm64', 'trace', 'fuzz', '--ops', '20000', '--seed', '1')
  assert.match(stdout.toString(), /^20000 calls on 6\.1\..* 0 kinds of difference\n$/)
})
