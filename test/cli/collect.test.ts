/** The files that `kvm-arm64 collect` writes, and `fleet missing`, which they use. test/engines runs them. */
import assert from 'node:assert/strict'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, test } from 'vitest'
import { kvmArm64, main } from './run.js'

const folder = mkdtempSync(join(tmpdir(), 'kvm-arm64-collect-'))
afterAll(() => rmSync(folder, { recursive: true }))
const at = (path: string) => join(folder, path)

const engines = {
  ansible: ['collect.yml', 'group_vars/all.yml', 'install.yml'],
  kubernetes: ['Containerfile', 'collect.sh', 'kvm-arm64.yaml', 'probe.sh'],
  prometheus: ['kvm-arm64-metrics.service', 'kvm-arm64-metrics.timer', 'kvm-arm64.rules.yml', 'metrics.sh'],
  slurm: ['collect.sh', 'probe.sbatch', 'shard.sbatch'],
}

describe('collect', () => {
  for (const [engine, expected] of Object.entries(engines)) {
    test(`writes the files for ${engine}, with the version of the package`, () => {
      const { status, out, error } = kvmArm64(['collect', '--for', engine, at(engine)])
      assert.equal(status, 0, error)
      const files = readdirSync(at(engine), { recursive: true, withFileTypes: true })
        .filter((entry) => entry.isFile())
        .map((entry) => join(entry.parentPath, entry.name).slice(at(engine).length + 1))
      assert.deepEqual(files.toSorted(), expected)
      for (const file of files) {
        const text = readFileSync(at(`${engine}/${file}`), 'utf8')
        assert.doesNotMatch(text, /@[A-Z]+@/, file)
        assert.equal((statSync(at(`${engine}/${file}`)).mode & 0o100) !== 0, text.startsWith('#!'), file)
        assert.ok(error.includes(`wrote ${at(`${engine}/${file}`)}`))
      }
      assert.match(out, /^next, in /)
    })
  }

  test('writes into a directory that has files only with --force, and leaves the others there', () => {
    const file = at('ansible/collect.yml')
    writeFileSync(file, 'mine')
    writeFileSync(at('ansible/inventory'), 'mine too')
    const refused = kvmArm64(['collect', '--for', 'ansible', at('ansible')])
    assert.deepEqual([refused.status, refused.out], [2, ''])
    assert.match(refused.error, /ansible is not empty: .*--force/)
    assert.equal(readFileSync(file, 'utf8'), 'mine')
    assert.equal(kvmArm64(['collect', '--for', 'ansible', '--force', at('ansible')]).status, 0)
    assert.match(readFileSync(file, 'utf8'), /^# Collects/)
    assert.equal(readFileSync(at('ansible/inventory'), 'utf8'), 'mine too')
  })

  test('refuses an unknown engine, a file, and a directory that cannot be made', () => {
    assert.match(kvmArm64(['collect', '--for', 'chef', at('chef')]).error, /chef.*ansible/)
    assert.ok(!existsSync(at('chef')))
    for (const path of [main, join(main, 'x')]) {
      const { status, error } = kvmArm64(['collect', '--for', 'ansible', path])
      assert.equal(status, 2)
      assert.match(error, /cannot be written \(ENOTDIR\)/)
    }
  })
})

/** The row of a host whose class consists of this digit. */
function row(name: string, of: string, day: number): string {
  return JSON.stringify({
    name,
    class: of.repeat(16),
    release: '6.12',
    build: '#1',
    origin: { kind: 'unknown' },
    probedAt: `2026-01-0${day}T00:00:00.000Z`,
  })
}

describe('fleet missing', () => {
  test('prints of each class without a report the host that was probed last', () => {
    const rows = [row('a', '1', 1), row('b', '1', 3), row('c', '1', 2), row('d', '2', 1)]
    const { status, out, error } = kvmArm64(['fleet', 'missing', '-'], { input: `${rows.join('\n')}\n` })
    assert.deepEqual([status, out, error], [0, 'b\nd\n', ''])
  })

  test('prints nothing where there is a report of every class', () => {
    kvmArm64(['probe', '--simulate', 'linux-6.1-max', '-o', at('one.json')])
    const rows = kvmArm64(['probe', '--simulate', 'linux-6.1-max', '--digest', '--name', 'two']).out
    const { status, out } = kvmArm64(['fleet', 'missing', at('one.json'), '-'], { input: rows })
    assert.deepEqual([status, out], [0, ''])
  })

  test('fails for what is no row', () => {
    const { status, error } = kvmArm64(['fleet', 'missing', '-'], {
      input: `${row('a', '1', 1)}\n{"name":"b"}\n`,
    })
    assert.equal(status, 2)
    assert.match(error, /standard input, line 2/)
  })
})
