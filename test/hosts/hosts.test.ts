import assert from 'node:assert/strict'
import { readdirSync } from 'node:fs'
import { test } from 'vitest'
import { checkReport } from '../../lib/report/read.js'
import { builtInHosts, builtInReport, simulator } from '../../lib/hosts/index.js'
import { packageRoot } from '../../lib/package-root.js'
import { made, oldHost } from '../simulator/fixture.js'

test('every recorded report has a name that the compiler knows', () => {
  const files = readdirSync(new URL('lib/hosts/recorded/', packageRoot))
  assert.deepEqual(
    files.toSorted(),
    builtInHosts()
      .map((name) => `${name}.json`)
      .toSorted(),
  )
})

test('every built-in host opens by its name, and its report is one', () => {
  for (const name of builtInHosts()) {
    assert.equal(made(simulator(name).open()).getApiVersion(), 12, name)
    assert.equal(simulator(name).host.release, builtInReport(name).host.release)
    assert.deepEqual(checkReport(builtInReport(name), name), builtInReport(name))
  }
})

test('a report is a host too', () => {
  assert.equal(simulator(oldHost).host.release, 'old')
})

test('an unknown host, or a path in its place, is an error that names the known ones', () => {
  for (const name of ['linux-2.6', '../hosts/seed-v6', '']) {
    assert.throws(() => simulator(name), {
      code: 'ERR_KVM_UNKNOWN_HOST',
      message: new RegExp(`called ${JSON.stringify(name)}.*There are: `),
    })
  }
})
