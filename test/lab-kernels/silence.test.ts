/** `probe --census` and `conformance` leave no line in the kernel's log; for the recorded hosts this is tested with all else. */
import assert from 'node:assert/strict'
import { it } from 'vitest'
import type { CheckResult } from '../../lib/conformance/index.js'
import { bootWithTests, logOf, runInside } from './lab-hosts.js'

it('Linux 7.2 with pKVM logs nothing of probe --census and conformance', async () => {
  await using lab = await bootWithTests({
    kernel: '7.2',
    cpu: 'neoverse-n1',
    append: 'kvm-arm.mode=protected',
  })
  const before = await logOf(lab)
  assert.ok(before.some((line) => line.includes('kvm [1]: Protected')))
  await runInside(lab, 'kvm-arm64', 'probe', '--census', '--backend', 'kernel', '--json')
  assert.deepEqual(await logOf(lab), before)
  const { stdout } = await runInside(lab, 'kvm-arm64', 'conformance', '--json')
  const failed = (JSON.parse(stdout.toString()) as CheckResult[]).filter(({ verdict }) => verdict === 'fails')
  assert.deepEqual(
    failed.map(({ name, did }) => `${name}: ${did}`),
    [],
  )
  assert.deepEqual(await logOf(lab), before)
})
