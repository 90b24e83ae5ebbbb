/** README.md and docs/: their commands run, their scripts print what they promise, and what they name exists. */
import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, test } from 'vitest'
import { exitStatus } from '../../lib/cli/exit.js'
import { builtInHosts } from '../../lib/hosts/index.js'
import { packageRoot } from '../../lib/package-root.js'
import { kvmArm64, main } from '../cli/run.js'
import { asksKvm, blocks, commands, makeFiles, pages, usesLab } from '../docs/commands.js'
import { examples, promisedBy } from '../docs/examples.js'
import { manifest } from './pack.js'

const readme = pages.find(({ file }) => file === 'README.md')!.text

function printed(script: string): string[] {
  return execFileSync(process.execPath, [script], { encoding: 'utf8' }).trimEnd().split('\n')
}

describe('examples', () => {
  for (const { name, path, promised, usesLab: needsLab, bootsKernel } of examples) {
    if (needsLab || bootsKernel || promised.length === 0) continue
    test(`${name} prints what its comments say`, () => {
      assert.deepEqual(printed(path), promised)
    })
  }

  test("the README's script prints what its comments say", () => {
    const [script, ...others] = blocks('js')
    assert.ok(script)
    assert.deepEqual(others, [])
    // Inside the package, where its own name resolves to it.
    const file = fileURLToPath(new URL('readme-example.mjs', import.meta.url))
    writeFileSync(file, script)
    try {
      assert.deepEqual(printed(file), promisedBy(script))
      assert.ok(promisedBy(script).length > 0)
    } finally {
      rmSync(file)
    }
  })
})

describe('commands', () => {
  let directory: string
  let bin: string

  beforeAll(() => {
    directory = mkdtempSync(join(tmpdir(), 'kvm-arm64-docs-'))
    bin = mkdtempSync(join(tmpdir(), 'kvm-arm64-docs-bin-'))
    makeFiles(directory, (args) => {
      const { status, error } = kvmArm64(args)
      assert.ok(status === exitStatus.done || status === exitStatus.negative, error)
    })
    const script = (name: string, text: string) =>
      writeFileSync(join(bin, name), `#!/bin/sh\n${text}\n`, { mode: 0o755 })
    script('npx', `[ "$1" = kvm-arm64 ] || exit 99\nshift\nexec ${process.execPath} ${main} "$@"`)
    // Another machine: a simulated host of that name.
    script('ssh', 'host=$1\nshift\nexec "$@" --simulate "$host"')
  })
  afterAll(() => {
    for (const folder of [directory, bin]) rmSync(folder, { recursive: true, force: true })
  })

  function run(command: string): { status: number | null; stderr: string } {
    return spawnSync('sh', ['-c', command], {
      cwd: directory,
      encoding: 'utf8',
      env: { ...process.env, PATH: `${bin}:${process.env.PATH}` },
    })
  }

  assert.ok(commands.length > 30)
  for (const command of commands) {
    if (usesLab(command)) continue
    // test/lab-kernels/docs.test.ts runs these on real KVM.
    if (asksKvm(command) && process.arch !== 'arm64') {
      test(`${command} (needs arm64 KVM)`, () => {
        assert.equal(run(command).status, exitStatus.machine)
      })
    } else {
      test(command, () => {
        const { status, stderr } = run(command)
        assert.ok(status === exitStatus.done || status === exitStatus.negative, `status ${status}: ${stderr}`)
      })
    }
  }
})

describe('the pages', () => {
  test('the README shows what the command prints', () => {
    const [shown, ...others] = blocks('console')
    assert.deepEqual(others, [])
    const [, command, output] = /^\$ npx kvm-arm64 (.*)\n([^]*)$/.exec(shown!)!
    assert.ok(kvmArm64(command!.split(' ')).out.startsWith(output!.trimEnd()))
  })

  test('the README has at most 100 lines', () => {
    assert.ok(readme.split('\n').length <= 100)
  })

  test('every link leads to a file', () => {
    for (const { file, text } of pages) {
      for (const [, target] of text.matchAll(/\]\(((?!https?:)[^)#]+)/g)) {
        assert.ok(existsSync(new URL(target!, new URL(file, packageRoot))), `${file}: ${target}`)
      }
    }
  })

  test('every npm script and every host that is named exists', () => {
    for (const { file, text } of pages) {
      for (const [, name] of text.matchAll(/npm run ([a-z:-]+)/g))
        assert.ok(Object.hasOwn(manifest.scripts, name!), `${file}: npm run ${name}`)
      for (const [host] of text.matchAll(/linux-\d+\.\d+-[a-z]+[a-z0-9-]*/g))
        assert.ok(
          builtInHosts().some((name) => name === host),
          `${file}: ${host}`,
        )
    }
  })

  test('every dependency at run time is justified in one line', () => {
    const contributing = readFileSync(new URL('CONTRIBUTING.md', packageRoot), 'utf8')
    for (const name of Object.keys(manifest.dependencies))
      assert.match(contributing, new RegExp(`^- \`${name}\`: .+\\.$`, 'm'))
  })

  test('every exit status is explained', () => {
    const { text } = pages.find(({ file }) => file === 'docs/getting-started.md')!
    for (const status of Object.values(exitStatus)) assert.match(text, new RegExp(`^\\| ${status} +\\|`, 'm'))
  })
})
