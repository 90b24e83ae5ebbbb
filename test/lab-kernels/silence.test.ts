/** `probe --census` and `conformance` are safe on a production host: they leave no line in the kernel's log. */
import assert from 'node:assert/strict'
import { describe, it } from 'vitest'
import type { CheckResult } from '../../lib/conformance/index.js'
import { bootLab, type Lab } from '../../lib/lab/index.js'
import { kernels, runInside } from './lab-hosts.js'

/** With pKVM from 6.18 on, a vCPU created after its VM has run makes the kernel warn. */
const hosts: readonly { kernel: string; append: readonly string[] }[] = [
  ...kernels.map((kernel) => ({ kernel, append: [] })),
  ...['6.18', '7.2'].map((kernel) => ({ kernel, append: ['kvm-arm.mode=protected'] })),
]

async function logOf(lab: Lab): Promise<string[]> {
  const { stdout } = await runInside(lab, 'dmesg')
  return stdout.toString().split('\n')
}

describe('the kernel’s log', () => {
  for (const { kernel, append } of hosts) {
    it(`of Linux ${[kernel, ...append].join(' with ')} gets no line from probe --census and conformance`, async () => {
      await using lab = await bootLab({ kernel, append: append.join(' '), smp: 2, timeout: 600 })
      const before = await logOf(lab)
      assert.ok(before.some((line) => line.includes('kvm [1]')))
      await runInside(lab, 'kvm-arm64', 'probe', '--census', '--backend', 'kernel', '--json')
      assert.deepEqual((await logOf(lab)).slice(before.length - 1), [''])
      const { stdout } = await lab.run(['kvm-arm64', 'conformance', '--json'])
      const failed = (JSON.parse(stdout.toString()) as CheckResult[]).filter(
        ({ verdict }) => verdict === 'fails',
      )
      assert.deepEqual(
        failed.map(({ name, did }) => `${name}: ${did}`),
        [],
      )
      assert.deepEqual((await logOf(lab)).slice(before.length - 1), [''])
    })
  }
})
