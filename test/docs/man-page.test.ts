import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import type { Command } from 'commander'
import { beforeAll, describe, test } from 'vitest'
import { commandLine } from '../../lib/cli/program.js'
import { manPage } from '../../tools/man-page.js'
import { ensurePrograms } from '../debian.js'

function withDescendants(command: Command): Command[] {
  return [command, ...command.commands.flatMap(withDescendants)]
}

describe('the man page', () => {
  let root: Command
  /** As a reader with a wide terminal sees it. */
  let page: string
  let warnings: string
  beforeAll(async () => {
    await ensurePrograms(['groff'])
    root = await commandLine()
    const { stdout, stderr } = spawnSync(
      'groff',
      ['-man', '-Tutf8', '-ww', '-P-c', '-P-b', '-P-o', '-P-u', '-rLL=200n'],
      { input: manPage(root), encoding: 'utf8' },
    )
    page = stdout
    warnings = stderr
  })

  test('is rendered without warnings', () => assert.equal(warnings, ''))

  test('names every command, argument and option', () => {
    const lines = page.split('\n').map((line) => line.trim())
    const commands = withDescendants(root)
    assert.ok(commands.length > 20)
    const sections = lines.flatMap((line, index) => (line.startsWith('kvm-arm64') ? [index] : []))
    for (const command of commands.slice(1)) {
      const help = command.createHelp()
      const start = lines.indexOf(help.commandUsage(command))
      assert.ok(start >= 0, help.commandUsage(command))
      const end = sections.find((index) => index > start && /\[options\]/.test(lines[index]!))
      const section = lines.slice(start, end)
      const terms = [
        ...help.visibleArguments(command).map((argument) => help.argumentTerm(argument)),
        ...help.visibleOptions(command).map((option) => help.optionTerm(option)),
      ]
      for (const term of terms) {
        assert.ok(
          section.some((line) => line === term || line.startsWith(`${term} `)),
          `${command.name()}: ${term}`,
        )
      }
    }
  })

  test('has the sections that every man page has', () => {
    for (const section of [
      'NAME',
      'SYNOPSIS',
      'OPTIONS',
      'COMMANDS',
      'EXAMPLES',
      'EXIT STATUS',
      'ENVIRONMENT',
    ])
      assert.match(page, new RegExp(`^${section}$`, 'm'))
  })

  test('shows examples as they are typed', () => {
    assert.match(page, /^ +kvm-arm64 decode 0x6030000000160000$/m)
    assert.match(page, /^ +export default async \(kvm\) => \{$/m)
    assert.match(page, /--arg name \$host '\{name: \$name, report: \.\}'/)
  })
})
