import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { describe, test } from 'vitest'
import { exitStatus } from '../../lib/cli/exit.js'
import { packageRoot } from '../../lib/package-root.js'
import { builtInHosts } from '../../lib/hosts/index.js'
import { kvmArm64 } from '../cli/run.js'
import { manifest } from './pack.js'

const readme = readFileSync(new URL('README.md', packageRoot), 'utf8')

/** The content of the README's code blocks in a language. */
function blocks(language: string): string[] {
  return [...readme.matchAll(new RegExp(`^\`\`\`${language}\n([^]*?)^\`\`\`$`, 'gm'))].map(
    (match) => match[1]!,
  )
}

describe('the README', () => {
  test('has an example that runs as it stands and prints what it says', () => {
    const [script, ...others] = blocks('js')
    assert.ok(script)
    assert.deepEqual(others, [])
    // Inside the package, where its own name resolves to it.
    const file = fileURLToPath(new URL('readme-example.mjs', import.meta.url))
    writeFileSync(file, script)
    try {
      const printed = execFileSync(process.execPath, [file], { encoding: 'utf8' })
      const promised = [...script.matchAll(/^.*console\.log.*\/\/ (.*)$/gm)].map((match) => match[1])
      assert.ok(promised.length > 0)
      assert.deepEqual(printed.trimEnd().split('\n'), promised)
    } finally {
      rmSync(file)
    }
  })

  test('names no npm script that does not exist', () => {
    const named = [...readme.matchAll(/npm run ([a-z:-]+)/g)].map((match) => match[1]!)
    assert.ok(named.includes('probe'))
    for (const name of named) assert.ok(name in manifest.scripts, `npm run ${name}`)
  })

  const lines = blocks('sh').join('').split('\n')
  // A command may be given to another: `lab run -- kvm-arm64 probe`.
  const commands = lines.flatMap((line) =>
    line
      .replace(/ +#.*/, '')
      .split(/(?:^npx| --) kvm-arm64 /)
      .slice(1),
  )
  assert.ok(commands.length > 20)

  for (const command of new Set(commands)) {
    test(`gives a command and options that there are: ${command}`, () => {
      const words = command.split(' ')
      const options = words.filter((word) => /^--?[a-z]/.test(word))
      const group = /^(lab|trace) /.test(command) ? 2 : 1
      const { status, out } = kvmArm64([...words.slice(0, group), '--help'])
      assert.equal(status, 0)
      for (const option of options) assert.match(out, new RegExp(`^  (-\\w, )?${option}[ ,\\n]`, 'm'))
    })
  }

  test('names no host that there is not', () => {
    const hosts = readme.match(/linux-\d+\.\d+-[a-z]+[a-z0-9-]*/g) ?? []
    for (const host of hosts)
      assert.ok(
        builtInHosts().some((name) => name === host),
        host,
      )
  })

  test('justifies every runtime dependency in one line', () => {
    for (const name of Object.keys(manifest.dependencies))
      assert.match(readme, new RegExp(`^- \`${name}\`: .+\\.$`, 'm'))
  })

  test('tells every exit status', () => {
    for (const status of Object.values(exitStatus))
      assert.match(readme, new RegExp(`^\\| ${status} +\\|`, 'm'))
  })
})
