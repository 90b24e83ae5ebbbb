/** The recordings as they were in version 1 of the format, and what its conversion makes of them. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'vitest'
import { brotliDecompressSync } from 'node:zlib'
import { builtInHosts, builtInReport } from '../../lib/hosts/index.js'
import { packageRoot } from '../../lib/package-root.js'
import { parseReport } from '../../lib/report/read.js'
import type { Traits } from '../../lib/report/report.js'
import { withoutMachine } from '../simulator/fixture.js'

const recordings = brotliDecompressSync(
  readFileSync(new URL('test/report/version-1/recordings.ndjson.br', packageRoot)),
)
  .toString()
  .trimEnd()
  .split('\n')
  .map((line) => JSON.parse(line) as { name: string; report: unknown })

test('every host recorded in version 1 is still built in', () => {
  assert.equal(recordings.length, 16)
  for (const { name } of recordings) assert.ok((builtInHosts() as readonly string[]).includes(name), name)
})

/** The seed's host as version 1 derived it: with fixes that came after 5.18-rc. */
function asFirstDerived({ narrowedRegisters: _later, ...traits }: Traits): Traits {
  return {
    ...traits,
    faultingSetZeroes: false,
    vcpuEventsNeedInit: true,
    runWithoutVgicInit: { errno: 'ENXIO', killsVm: true },
  }
}

for (const { name, report } of recordings) {
  test(`the recording of ${name} in version 1 is read as the one in use, but for who answered and what was not asked`, () => {
    const converted = parseReport(JSON.stringify(report), name)
    assert.deepEqual(converted.origin, { kind: 'unknown' })
    const { origin, traits, ...rest } = withoutMachine(builtInReport(name))
    const {
      irqEventKeepsCount: _keepsCount,
      irqLineByIndex: _byIndex,
      irqLineChecksInitFirst: _initFirst,
      gicRevisionKept: _revisionKept,
      pmu,
      ...older
    } = name === 'seed-v6' ? asFirstDerived(traits) : traits
    const { firstRunKeeps: _kept, ...olderPmu } = pmu!
    // It was recorded anew since, in some cases on an update of its kernel.
    const { probedAt, host } = converted
    assert.deepEqual(
      { ...converted, origin },
      {
        ...rest,
        probedAt,
        host,
        origin,
        traits: { ...older, pmu: olderPmu },
      },
    )
  })
}
