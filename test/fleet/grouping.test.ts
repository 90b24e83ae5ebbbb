/** What a fleet and a verdict group by is data: with other words every group stays the same. */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, describe, test, vi } from 'vitest'
import { builtInHosts, builtInReport, simulator } from '../../lib/hosts/index.js'
import { openKvm } from '../../lib/kvm/index.js'
import { captureHost } from '../../lib/migration/capture.js'
import type { Finding } from '../../lib/migration/finding.js'
import { verdict } from '../../lib/migration/verdict.js'

const folder = mkdtempSync(join(tmpdir(), 'kvm-arm64-grouping-'))
afterAll(() => rmSync(folder, { recursive: true }))
const hosts = builtInHosts().filter((name) => name.endsWith('-max') || name.endsWith('-n1'))

const WORDS = '../../lib/migration/words.js'

/** Takes the words away: all findings say the same, or each says something else. */
function replaceWords(say: (finding: Finding) => string): void {
  vi.doMock(WORDS, async (original) => ({
    ...(await original<object>()),
    findingWords: (finding: Finding) => {
      const text = say(finding)
      return { source: text, destination: text, meaning: text, remedy: text }
    },
  }))
  vi.resetModules()
}

afterEach(() => {
  vi.doUnmock(WORDS)
  vi.resetModules()
})

/** Headings, and what findings under them are about. */
function subjectsIn(text: string): string[] {
  return text.split('\n').flatMap((line) => /^ {2,4}(\S[^:]*)/.exec(line)?.[1] ?? [])
}

let number = 0
const others: Readonly<Record<string, (finding: Finding) => string>> = {
  'the same for all': () => 'x',
  'the codes': ({ code }) => code,
  'never the same twice': () => `${number++}`,
}

describe('groups do not depend on words', () => {
  for (const [what, say] of Object.entries(others)) {
    test(`of a fleet, with ${what}`, async () => {
      const file = join(folder, 'fleet.ndjson')
      writeFileSync(file, hosts.map((host) => JSON.stringify(builtInReport(host))).join('\n'))
      const analyse = async (): Promise<unknown> => {
        const { readFleet } = await import('../../lib/fleet/classes.js')
        const { analyseFleet } = await import('../../lib/fleet/analyse.js')
        const { fleetDocument } = await import('../../lib/fleet/document.js')
        const fleet = readFleet(file)
        return fleetDocument(fleet, analyseFleet(fleet))
      }
      const expected = await analyse()
      replaceWords(say)
      assert.deepEqual(await analyse(), expected)
    })

    test(`of the text of a verdict, with ${what}`, async () => {
      using source = openKvm(simulator('linux-7.2-max'))
      using destination = openKvm(simulator('linux-5.10-neoverse-n1'))
      const origin = { kind: 'kernel' } as const
      const ends = {
        from: { name: 'a', origin },
        to: { name: 'b', origin },
        restoredOn: 'simulation' as const,
      }
      const move = { ...ends, ...verdict(captureHost(source), destination) }
      const show = async (): Promise<string> => {
        const { verdictText } = await import('../../lib/cli/view/verdict.js')
        return verdictText({ format: 'kvm-arm64/verdict', version: 1, moves: [move] })
      }
      const text = await show()
      const expected = subjectsIn(text)
      assert.ok(expected.length > 50)
      assert.ok(expected.some((line) => /^\d+ registers$/.test(line)))
      replaceWords(say)
      const other = await show()
      assert.notEqual(other, text)
      assert.deepEqual(subjectsIn(other), expected)
    })
  }
})
