/** Not part of the suite inside the lab, where `prlimit` and `perl` are not. */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { hasKvm, withoutKvm } from './handles.js'
import { type End, endOf } from './stage-end.js'

const clean: End = { code: 0, signal: null, stdout: '', stderr: '' }

if (hasKvm) {
  describe('A process whose signals fail it or deceive it ends as it should', () => {
    it('with runs that end where the user has no room for queued signals', async () => {
      const stage = 'a run that was kicked and one that was closed'
      assert.deepEqual(await endOf(stage, 'prlimit', '--sigpending=0'), clean)
    })

    it('with a signal of somebody else that looks like a deadline', async () => {
      assert.deepEqual(await endOf('a signal that claims to be of a timer'), clean)
    })
  })
} else void it.skip(withoutKvm)
