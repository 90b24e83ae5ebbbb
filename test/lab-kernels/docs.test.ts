/** The commands and scripts of README.md and docs/ that need real KVM, or that boot a lab themselves. */
import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { afterAll, beforeAll, describe, test } from 'vitest'
import { exitStatus } from '../../lib/cli/exit.js'
import { bootLab, type Lab } from '../../lib/lab/index.js'
import { ensureKernel } from '../../lib/lab/kernels.js'
import { initramfs } from '../../lib/machine/index.js'
import { kvmArm64, main } from '../cli/run.js'
import { asksKvm, commands, makeFiles, usesLab } from '../docs/commands.js'
import { examples } from '../docs/examples.js'
import { initProgram } from '../machine/init-program.js'
import { interpretOnly } from './lab-hosts.js'

const answers: ReadonlySet<unknown> = new Set([exitStatus.done, exitStatus.negative])
let directory: string

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), 'kvm-arm64-docs-'))
  makeFiles(directory, (args) => {
    const { status, error } = kvmArm64(args)
    assert.ok(answers.has(status), error)
  })
  copyFileSync((await ensureKernel('6.12')).image, join(directory, 'Image'))
  writeFileSync(join(directory, 'initrd.cpio'), await initramfs({ init: initProgram('init runs') }))
})
afterAll(() => {
  rmSync(directory, { recursive: true, force: true })
})

describe('on real KVM', () => {
  let lab: Lab
  beforeAll(async () => {
    const scripts = examples
      .filter(({ takesReal, bootsKernel }) => takesReal || bootsKernel)
      .map(({ path }) => path)
    lab = await bootLab({ kernel: '6.12', copy: [directory, ...scripts] })
    await interpretOnly(lab)
  })
  afterAll(() => lab.close())

  for (const { name, promised } of examples.filter(({ takesReal }) => takesReal)) {
    test(`${name} prints what its comments say`, async () => {
      const { stdout, stderr } = await lab.run(['node', `docs/examples/${name}`, 'real'])
      assert.deepEqual(String(stdout).trimEnd().split('\n'), promised, String(stderr))
    })
  }

  for (const { name, promised } of examples.filter(({ bootsKernel }) => bootsKernel)) {
    test(`${name} prints what its comments say`, async () => {
      const image = `${basename(directory)}/Image`
      const { stdout, stderr } = await lab.run(['node', `docs/examples/${name}`, image], { timeout: 600 })
      assert.deepEqual(String(stdout).trimEnd().split('\n'), promised, String(stderr))
    })
  }

  for (const command of commands.filter(asksKvm)) {
    test(command, async () => {
      const script = `cd ${basename(directory)} && npx() { shift; kvm-arm64 "$@"; } && ${command}`
      const { status, stderr } = await lab.run(['sh', '-c', script])
      assert.ok(answers.has(status), `status ${status}: ${String(stderr)}`)
    })
  }
})

describe('on this machine', () => {
  for (const { name, path, promised } of examples.filter((example) => example.usesLab)) {
    test(`${name} prints what its comments say`, () => {
      const printed = execFileSync(process.execPath, [path], { encoding: 'utf8' })
      assert.deepEqual(printed.trimEnd().split('\n'), promised)
    })
  }

  for (const command of commands.filter(usesLab)) {
    test(command, () => {
      writeFileSync(join(directory, 'npx'), `#!/bin/sh\nshift\nexec ${process.execPath} ${main} "$@"\n`, {
        mode: 0o755,
      })
      const { status, stderr } = spawnSync('sh', ['-c', command], {
        cwd: directory,
        encoding: 'utf8',
        env: { ...process.env, PATH: `${directory}:${process.env.PATH}` },
      })
      assert.ok(answers.has(status), `status ${status}: ${stderr}`)
    })
  }
})
