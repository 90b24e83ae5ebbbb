import assert from 'node:assert/strict'
import { describe, it } from 'vitest'
import * as fc from 'fast-check'
import { compareVersions, matchesKernel } from '../../lib/lab/kernels.js'

describe('which kernel is the newest', () => {
  const ascending = [
    '5.10.223-1',
    '5.10.262-1',
    '6.1.9-1',
    '6.1.176-1~deb11u1',
    '6.1.176-1',
    '6.12.107-1',
    '6.12.115-1~deb12u1',
    '6.12.115-1',
    '6.12.115-2~deb12u1',
    '6.12.115-2',
    '7.3.4-1~bpo13+1',
    '7.3.4-1~bpo13+2',
    '7.3.4-1',
    '7.3.4-1+b1',
  ]

  it('follows the order of Debian package versions', () => {
    fc.assert(
      fc.property(fc.shuffledSubarray(ascending), (versions) => {
        const sorted = versions.toSorted(compareVersions)
        assert.deepEqual(
          sorted,
          ascending.filter((version) => versions.includes(version)),
        )
      }),
    )
  })
})

describe('which kernels answer to what was asked for', () => {
  const trixie = { release: '6.12.107+deb13-arm64', version: '6.12.107-1' }
  const bullseye = { release: '5.10.0-32-arm64', version: '5.10.223-1' }
  const cases: [{ release: string; version: string }, string, boolean][] = [
    [trixie, '6.12', true],
    [trixie, '6.12.107', true],
    [trixie, '6.12.107+deb13-arm64', true],
    [trixie, '6.12.107-1', true],
    [trixie, '6.1', false],
    [trixie, '6.12.10', false],
    [trixie, '6', true],
    [trixie, '6.12.107+deb13', false],
    [trixie, '', false],
    [bullseye, '5.10', true],
    [bullseye, '5.10.223', true],
    [bullseye, '5.10.0-32-arm64', true],
    [bullseye, '5.10.0', true],
    [bullseye, '5.1', false],
  ]
  for (const [kernel, wanted, answers] of cases) {
    it(`${kernel.release} (${kernel.version}) ${answers ? 'answers' : 'does not answer'} to '${wanted}'`, () => {
      assert.equal(matchesKernel(kernel, wanted), answers)
    })
  }
})
