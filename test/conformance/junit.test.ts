import assert from 'node:assert/strict'
import { describe, test } from 'vitest'
import { type CheckResult, conformance, junitXml } from '../../lib/conformance/index.js'
import { simulator } from '../../lib/hosts/index.js'
import { parseXml } from './xml.js'

function resultWith(properties: Partial<CheckResult>): CheckResult {
  return {
    group: 'Group',
    name: 'Something happens',
    promise: 'it does',
    source: 'api.rst',
    mark: 'promised',
    verdict: 'passes',
    did: 'it did',
    seconds: 0.25,
    ...properties,
  }
}

describe('JUnit XML', () => {
  test('is well formed, with a test case for each check', () => {
    const results = conformance(simulator('seed-v6'))
    const root = parseXml(junitXml(results, 'seed-v6, simulated'))
    assert.equal(root.name, 'testsuites')
    const [suite] = root.children
    assert.equal(suite?.attributes.name, 'seed-v6, simulated')
    assert.deepEqual(
      suite.children.map(({ attributes }) => [attributes.classname, attributes.name]),
      results.map(({ group, name }) => [group, name]),
    )
    assert.equal(suite.attributes.tests, String(results.length))
  })

  for (const [verdict, mark, kinds, failures, skipped] of [
    ['passes', 'promised', ['properties', 'system-out'], '0', '0'],
    ['deviates', 'promised', ['properties', 'skipped', 'system-out'], '0', '1'],
    ['not applicable', 'observed', ['properties', 'skipped', 'system-out'], '0', '1'],
    ['fails', 'promised', ['properties', 'failure'], '1', '0'],
    ['fails', 'observed', ['properties', 'skipped', 'system-out'], '0', '1'],
  ] as const) {
    test(`shows what ${verdict} and was ${mark} as ${kinds[1]}`, () => {
      const root = parseXml(junitXml([resultWith({ verdict, mark })], 'host'))
      const [testCase] = root.children[0]!.children
      assert.deepEqual(
        testCase!.children.map(({ name }) => name),
        kinds,
      )
      assert.deepEqual(
        testCase!.children[0]!.children.map(({ attributes }) => [attributes.name, attributes.value]),
        [
          ['verdict', verdict],
          ['mark', mark],
        ],
      )
      if (kinds.some((kind) => kind === 'skipped')) {
        assert.equal(testCase!.children[1]!.attributes.message, `${verdict}: it did`)
      }
      assert.deepEqual([testCase!.attributes.time, root.attributes.time], ['0.250000', '0.250000'])
      assert.equal(root.attributes.failures, failures)
      assert.equal(root.attributes.skipped, skipped)
      assert.match(
        testCase!.children.at(-1)!.text,
        new RegExp(`^${verdict} \\(${mark}\\)\n.*\n.*\nkernel: it did$`),
      )
    })
  }

  test('holds any text', () => {
    const did = '<b> & "quotes" \' ]]> \u0000\u001b[31m \ud800 \ufffe ’ 😀'
    const root = parseXml(junitXml([resultWith({ verdict: 'fails', did })], '<&">'))
    const [suite] = root.children
    assert.equal(suite!.attributes.name, '<&">')
    assert.equal(
      suite!.children[0]!.children[1]!.attributes.message,
      '<b> & "quotes" \' ]]> \ufffd\ufffd[31m \ufffd \ufffd ’ 😀',
    )
  })
})
