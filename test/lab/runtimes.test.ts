/** What is not the Node.js that runs the other tests; `npm run tool runtimes` tries them all, with the unit tests. */
import assert from 'node:assert/strict'
import { describe, it } from 'vitest'
import { openKvmOn, runtimes, simulateOn } from './runtimes.js'

const said = { status: 0, stdout: 'PSCI_VERSION is 0x10001\n', stderr: '' }
const here = process.arch === 'arm64' ? 'arm64' : 'x64'

for (const runtime of runtimes.filter(
  ({ isNode }, index) => !isNode || runtimes[index + 1]?.isNode === false,
)) {
  const version = runtime.packages.arm64.split('@').at(-1)
  describe(`${runtime.name} ${version}`, () => {
    it('opens a simulated host', () => {
      assert.deepEqual(simulateOn(runtime, here), said)
    })

    it('opens real KVM, runs a guest and closes everything', async () => {
      assert.deepEqual(await openKvmOn(runtime), said)
    })
  })
}
