import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { exitStatus } from '../../lib/cli/exit.js'
import { packageRoot } from '../../lib/package-root.js'
import { builtInHosts } from '../../lib/simulator/index.js'
import { kvmArm64 } from '../cli/run.js'

const readme = readFileSync(new URL('README.md', packageRoot), 'utf8')
const { scripts, dependencies } = JSON.parse(readFileSync(new URL('package.json', packageRoot), 'utf8')) as {
  scripts: Record<string, string>
  dependencies: Record<string, string>
}

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
    for (const name of named) assert.ok(name in scripts, `npm run ${name}`)
  })

  test('gives commands that the command line knows', () => {
    const lines = blocks('sh').join('').split('\n')
    const commands = lines.flatMap((line) => /^npx kvm-arm64 ((?:lab )?[a-z]+)/.exec(line)?.[1] ?? [])
    assert.ok(commands.length >= 5)
    for (const command of new Set(commands)) {
      assert.equal(kvmArm64([...command.split(' '), '--help']).status, 0, command)
    }
    const hosts = readme.match(/linux-\d+\.\d+-[a-z]+[a-z0-9-]*/g) ?? []
    for (const host of hosts) assert.ok(builtInHosts().includes(host), host)
  })

  test('justifies every runtime dependency in one line', () => {
    for (const name of Object.keys(dependencies))
      assert.match(readme, new RegExp(`^- \`${name}\`: .+\\.$`, 'm'))
  })

  test('tells every exit status', () => {
    for (const status of Object.values(exitStatus))
      assert.match(readme, new RegExp(`^\\| ${status} +\\|`, 'm'))
  })
})
