import assert from 'node:assert/strict'
import { beforeAll, describe, it } from 'vitest'
import { journey, type Step } from './journey.js'

describe('A guest that is carried from Linux 7.2 to older kernels', () => {
  const steps: Step[] = []
  beforeAll(async () => {
    for await (const step of journey()) steps.push(step)
  })

  /** What a guest that was let live has to say. */
  function lived(index: number): { found: string[]; changed: string[] } {
    const { title, stay } = steps[index]!
    if ('refused' in stay) assert.fail(`${title}: ${stay.refused}`)
    return stay
  }

  function refused(index: number): string[] {
    const { title, stay } = steps[index]!
    if (!('refused' in stay)) assert.fail(`${title}: nothing was refused`)
    return stay.outcomes.filter(({ outcome }) => outcome !== 'same').map(({ name }) => name)
  }

  it('finds the services of Linux 7.2, and there sees nothing change', () => {
    const { found, changed } = lived(0)
    assert.deepEqual(changed, [])
    for (const answer of [/^PSCI_VERSION: 0x10003$/, /^TRNG_VERSION: 0x10000$/, /^TRNG_RND64: 0x0$/]) {
      assert.ok(
        found.some((line) => answer.test(line)),
        `${answer.source} in ${found.join(', ')}`,
      )
    }
  })

  it('has each register restored, refused or missed as was predicted', () => {
    const restored = steps.filter(({ predicted }) => predicted !== null)
    assert.equal(restored.length, 7)
    for (const { title, stay, predicted } of restored) {
      if ('refused' in stay) assert.deepEqual(stay.outcomes, predicted, title)
      else
        assert.ok(
          predicted!.every(({ outcome }) => outcome === 'same'),
          title,
        )
    }
  })

  it('is refused by Linux 6.1 and by Linux 5.10 where nothing was elected', () => {
    assert.ok(refused(1).includes('KVM_REG_ARM_PSCI_VERSION'))
    for (const name of ['KVM_REG_ARM_PSCI_VERSION', 'KVM_REG_ARM_STD_BMAP', 'KVM_REG_ARM_VENDOR_HYP_BMAP']) {
      assert.ok(refused(3).includes(name), name)
    }
  })

  it('meets there a PSCI it does not know and hypercalls that are gone, if it is restored regardless', () => {
    assert.ok(lived(2).changed.includes('PSCI_VERSION is now 0x10001'))
    const { changed } = lived(4)
    for (const change of ['PSCI_VERSION is now 0x10000', 'TRNG_VERSION is now NOT_SUPPORTED']) {
      assert.ok(changed.includes(change), `${change} in ${changed.join(', ')}`)
    }
  })

  it('goes to Linux 6.1 and back with the baseline of both elected, and sees nothing change', () => {
    for (const index of [5, 6, 7]) assert.deepEqual(lived(index).changed, [], steps[index]!.title)
  })

  it('with the baseline of all three sees nothing change but the field that the baseline could not settle', () => {
    assert.ok(lived(8).found.includes('TRNG_VERSION: NOT_SUPPORTED'))
    for (const index of [9, 11]) assert.deepEqual(refused(index), ['ID_AA64DFR0_EL1'])
    for (const index of [10, 12]) {
      const { changed } = lived(index)
      assert.equal(changed.length, 1)
      assert.match(changed[0]!, /^ID_AA64DFR0_EL1 is now 0x/)
    }
    assert.deepEqual(lived(13).changed, [])
  })
})
