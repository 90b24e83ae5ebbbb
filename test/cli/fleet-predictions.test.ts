/** Predictions of a large fleet as the command makes them: in threads, kept for later runs, and after an interruption continued. */
import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { pathToFileURL } from 'node:url'
import { afterAll, describe, it } from 'vitest'
import { builtInReport } from '../../lib/hosts/index.js'
import { kvmArm64, main } from './run.js'

const folder = mkdtempSync(join(tmpdir(), 'kvm-arm64-fleet-predictions-'))
afterAll(() => rmSync(folder, { recursive: true }))

/** A fleet with more moves than the command predicts without threads and cache. */
const CLASSES = 51
const reports = join(folder, 'reports.ndjson')
const lines = Array.from({ length: CLASSES }, (_, index) => {
  const report = builtInReport('linux-5.10-cortex-a57')
  report.registers.find(({ name }) => name === 'MIDR_EL1')!.value = `0x411fd${(0x100 + index).toString(16)}`
  return JSON.stringify({ name: `node-${index}`, report })
})
writeFileSync(reports, lines.join('\n'))

describe('kvm-arm64 fleet of many classes', () => {
  const cache = join(folder, 'cache')
  const kept = join(cache, 'kvm-arm64', 'predictions')
  const env = { XDG_CACHE_HOME: cache }
  const files = () => (existsSync(kept) ? readdirSync(kept) : [])

  it('keeps predictions when interrupted, continues, and prints the same as without a cache', async () => {
    const child = spawn(process.execPath, [main, 'fleet', reports, '--json'], {
      env: { ...process.env, ...env },
      stdio: ['ignore', 'ignore', 'pipe'],
    })
    let error = ''
    child.stderr.on('data', (chunk: Buffer) => (error += chunk.toString()))
    const ended = once(child, 'close') as Promise<[status: number | null, signal: string | null]>
    while (files().length === 0) await setTimeout(5)
    child.kill('SIGINT')
    assert.deepEqual(await ended, [null, 'SIGINT'])
    const [, done] =
      /^kvm-arm64: interrupted: (\d+) of 2601 predictions are made; the next run continues$/m.exec(error)!
    assert.ok(Number(done) > 0 && Number(done) < 2601, error)
    assert.equal(files().length, Number(done) / CLASSES)
    const continued = kvmArm64(['fleet', reports, '--json'], { env })
    assert.equal(continued.status, 0, continued.error)
    assert.equal(files().length, CLASSES)
    const anew = kvmArm64(['fleet', reports, '--json', '--no-cache'], {
      env: { XDG_CACHE_HOME: join(folder, 'unused') },
    })
    assert.equal(anew.out, continued.out)
    assert.ok(!existsSync(join(folder, 'unused')))
  })

  it('gives the same in any number of threads', () => {
    const program = `
      import { analyseFleet, fleetDocument, predictMoves, readFleet } from ${JSON.stringify(
        pathToFileURL(join(main, '..', 'fleet.js')).href,
      )}
      const fleet = readFleet(${JSON.stringify(join(folder, 'few.ndjson'))})
      const documents = []
      for (const threads of [1, 2, 3]) {
        const predicted = await predictMoves(fleet, { threads })
        documents.push(JSON.stringify(fleetDocument(fleet, analyseFleet(fleet, { predicted }))))
      }
      documents.push(JSON.stringify(fleetDocument(fleet, analyseFleet(fleet))))
      console.log(new Set(documents).size, fleet.classes.length)`
    const hosts = [
      'linux-7.2-max',
      'linux-6.12-cortex-a57',
      'linux-6.1-max',
      'linux-5.10-neoverse-n1',
    ] as const
    writeFileSync(
      join(folder, 'few.ndjson'),
      hosts.map((host) => JSON.stringify(builtInReport(host))).join('\n'),
    )
    const options = ['--input-type=module', '-e', program]
    assert.equal(execFileSync(process.execPath, options, { encoding: 'utf8' }), '1 4\n')
  })
})
