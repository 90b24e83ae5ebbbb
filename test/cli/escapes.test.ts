/** No command prints raw what a terminal obeys or hides, whether it comes in a name, an argument or a file. */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, test } from 'vitest'
import { commandLine } from '../../lib/cli/program.js'
import { HIDDEN, printable } from '../../lib/documents/printable.js'
import { builtInReport } from '../../lib/hosts/index.js'
import { kvmArm64 } from './run.js'

const folder = mkdtempSync(join(tmpdir(), 'kvm-arm64-escapes-'))
afterAll(() => rmSync(folder, { recursive: true }))

const HOST = 'linux-6.12-neoverse-n1'
/** Inverse video, which no command uses itself, in both spellings; text from right to left; a space of no width. */
const EVIL = 'e\u001b[7mvil\u202e\u200b\u009b7m'

function fileOf(name: string, content: string): string {
  const file = join(folder, name)
  writeFileSync(file, content)
  return file
}

const report = builtInReport(HOST)
const host = fileOf(`${EVIL}.json`, JSON.stringify(report))
const hostileHost = fileOf('host.json', JSON.stringify({ ...report, host: { release: EVIL, build: EVIL } }))
const noReport = fileOf(`none-${EVIL}.json`, JSON.stringify({ format: EVIL, version: EVIL, [EVIL]: 1 }))
const noJson = fileOf(`broken-${EVIL}.json`, `{"${EVIL}`)
const fleet = fileOf('fleet.ndjson', `${JSON.stringify({ name: EVIL, report })}\n`)
const trace = fileOf(
  `${EVIL}.ndjson`,
  [
    { trace: 'kvm-arm64', version: 1, host: EVIL },
    { op: 'api_version', value: 13 },
  ]
    .map((line) => `${JSON.stringify(line)}\n`)
    .join(''),
)

/** Each command with outside text where it prints most of it. */
const commands: readonly (readonly string[])[] = [
  [EVIL],
  [`--${EVIL}`],
  ['help', EVIL],
  ['apply', noReport],
  ['baseline', host, HOST],
  ['baseline', host, noJson],
  ['boot', '--kernel', noJson],
  ['capture', '--simulate', HOST, '--features', EVIL],
  ['census', '--simulate', host],
  ['check', '--from', host, '--to', HOST],
  ['collect', '--for', 'slurm', folder],
  ['completion', EVIL],
  ['conformance', '--simulate', host, '--only', EVIL],
  ['decode', EVIL],
  ['diff', host, HOST],
  ['doctor', '--require', EVIL],
  ['export', host, '--to', 'prometheus'],
  ['export', HOST, '--to', 'nfd', '--namespace', EVIL],
  ['fleet', host, noJson, noReport],
  ['fleet', fleet, '--json'],
  ['hosts', EVIL],
  ['import', noJson],
  ['lab', 'run', '--smp', EVIL, 'true'],
  ['probe', '--simulate', host],
  ['probe', '--simulate', HOST, '-o', join(folder, EVIL, 'host.json')],
  ['probe', '--simulate', HOST, '-o', join(folder, `new-${EVIL}.json`)],
  ['show', host],
  ['show', hostileHost],
  ['show', host, '--json'],
  ['show', host, '--register', EVIL],
  ['trace', 'record', trace, '--simulate', host],
  ['trace', 'replay', trace, '--simulate', HOST],
  ['trace', 'fuzz', '--simulate', host, '--against', HOST, '--ops', '10'],
]

describe('what a command prints', () => {
  for (const args of commands) {
    test(`has no raw escape: ${printable(args.join(' ').replaceAll(folder, ''))}`, () => {
      const { out, error } = kvmArm64(args, { env: { FORCE_COLOR: '1' } })
      assert.notEqual(out + error, '')
      // oxlint-disable-next-line no-control-regex
      const withoutColours = (out + error).replaceAll(/\u001b\[(?!7m)\d+m/g, '')
      const raw = new RegExp(String.raw`(?!\n)[${HIDDEN}]`, 'u')
      assert.doesNotMatch(withoutColours, raw)
    })
  }

  test('is tried for every command', async () => {
    const names = (await commandLine()).commands.map((command) => command.name())
    assert.deepEqual(
      names.filter((name) => commands.every(([first]) => first !== name)),
      [],
    )
  })
})
