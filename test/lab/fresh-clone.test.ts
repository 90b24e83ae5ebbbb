/** What a stranger gets who packs a fresh clone and installs the tarball: in an empty folder, and from there in the lab. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterAll, beforeAll, describe, it } from 'vitest'
import type { Report } from '../../lib/report/report.js'
import { root } from '../package/pack.js'

function run(cwd: string, command: string, ...args: string[]): string {
  return execFileSync(command, args, { cwd, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] })
}

describe('the tarball of a fresh clone', () => {
  const folder = mkdtempSync(join(tmpdir(), 'kvm-arm64-fresh-clone-'))
  const [clone, empty] = [join(folder, 'clone'), join(folder, 'empty')]
  afterAll(() => rmSync(folder, { recursive: true }))

  beforeAll(() => {
    // Of this state of the sources, committed or not, what git would bring along; and what `npm ci` would install.
    const files = run(root, 'git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard').split('\0')
    for (const file of files.filter((name) => name !== '' && existsSync(join(root, name)))) {
      mkdirSync(dirname(join(clone, file)), { recursive: true })
      cpSync(join(root, file), join(clone, file))
    }
    symlinkSync(join(root, 'node_modules'), join(clone, 'node_modules'))
    mkdirSync(empty)
    writeFileSync(join(empty, 'package.json'), '{ "private": true }')
    run(clone, 'npm', 'pack', '--pack-destination', empty)
    const tarball = readdirSync(empty).find((name) => name.endsWith('.tgz'))
    run(empty, 'npm', 'install', '--ignore-scripts', '--prefer-offline', '--no-audit', '--no-fund', tarball!)
  })

  it('opens a simulated host', () => {
    const script = `
      import { openKvm, simulator } from 'kvm-arm64'
      const kvm = openKvm(simulator('linux-6.12-neoverse-n1'))
      console.log(kvm.createVm().createVcpu(0).registers.get('KVM_REG_ARM_STD_BMAP'))`
    assert.equal(run(empty, process.execPath, '--input-type=module', '-e', script), '1n\n')
  })

  it('probes real KVM in the lab', () => {
    const probe = ['kvm-arm64', 'probe', '--backend', 'kernel', '--json']
    const printed = run(empty, 'npx', '--no', 'kvm-arm64', 'lab', 'run', '--kernel', '6.12', '--', ...probe)
    const report = JSON.parse(printed) as Report
    assert.match(report.host.release, /^6\.12\./)
    assert.ok(report.registers.some(({ id }) => id === '0x6030000000160000'))
  })
})
