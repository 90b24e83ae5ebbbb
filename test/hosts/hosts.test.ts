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
      message: new RegExp(`no such built-in host ${JSON.stringify(name)}; there are linux-5\\.10-`),
    })
  }
})

test('a misspelt host is an error that names the nearest', () => {
  const misspelt: string = 'linux-6.12-neoverse-nl'
  assert.throws(() => simulator(misspelt), {
    message: /"linux-6\.12-neoverse-nl"; did you mean linux-6\.12-neoverse-n1, .*\?$/,
  })
})
