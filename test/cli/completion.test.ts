/** The scripts, sourced by the shells themselves. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, test } from 'vitest'
import { commandLine } from '../../lib/cli/program.js'
import { ensurePrograms } from '../debian.js'
import { kvmArm64 } from './run.js'

const folder = mkdtempSync(join(tmpdir(), 'kvm-arm64-completion-'))
afterAll(() => rmSync(folder, { recursive: true }))
const file = join(folder, 'host.json')
writeFileSync(file, '')

const shells = ['bash', 'zsh', 'fish'] as const
const scripts = Object.fromEntries(
  shells.map((shell) => {
    const script = join(folder, `completion.${shell}`)
    const { status, out } = kvmArm64(['completion', shell])
    assert.equal(status, 0)
    writeFileSync(script, out)
    return [shell, script]
  }),
) as Record<(typeof shells)[number], string>

/** What stands on the line so far, and what it may become. */
const cases: readonly (readonly [line: string, candidates: readonly string[]])[] = [
  ['kvm-arm64 prob', ['probe']],
  ['kvm-arm64 lab s', ['setup']],
  ['kvm-arm64 trace re', ['record', 'replay']],
  ['kvm-arm64 probe --simula', ['--simulate']],
  ['kvm-arm64 lab kernels --j', ['--json']],
  ['kvm-arm64 probe --simulate linux-6.12-m', ['linux-6.12-max', 'linux-6.12-max-qemu-11']],
  ['kvm-arm64 check --from linux-6.18-m', ['linux-6.18-max']],
  ['kvm-arm64 show seed', ['seed-v6']],
  ['kvm-arm64 export --to qemu@1', ['qemu@10.0', 'qemu@11.1']],
  [`kvm-arm64 show ${folder}/ho`, [file]],
  [`kvm-arm64 probe -o ${folder}/ho`, [file]],
  ['kvm-arm64 capture --features pmu-v3,sv', ['pmu-v3,sve']],
  ['kvm-arm64 census --elect pv-time,pt', ['pv-time,ptp']],
  ['kvm-arm64 completion f', ['fish']],
]

describe('bash', () => {
  for (const [line, candidates] of cases) {
    test(`completes ${line.replace(folder, '')}`, () => {
      const words = line.split(' ').map((word) => `'${word}'`)
      const { stdout, stderr } = spawnSync(
        'bash',
        [
          '-c',
          `source ${scripts.bash}; COMP_WORDS=(${words.join(' ')}); COMP_CWORD=${words.length - 1}; _kvm_arm64; printf '%s\\n' "\${COMPREPLY[@]}"`,
        ],
        { encoding: 'utf8' },
      )
      assert.equal(stderr, '')
      assert.deepEqual(stdout.trim().split('\n').toSorted(), candidates)
    })
  }

  test('is what `complete` calls', () => {
    const { stdout } = spawnSync('bash', ['-c', `source ${scripts.bash}; complete -p kvm-arm64`], {
      encoding: 'utf8',
    })
    assert.equal(stdout, 'complete -F _kvm_arm64 kvm-arm64\n')
  })
})

describe('fish', () => {
  beforeAll(() => ensurePrograms(['fish']))
  for (const [line, candidates] of cases) {
    test(`completes ${line.replace(folder, '')}`, () => {
      const { stdout, stderr } = spawnSync(
        'fish',
        ['--no-config', '-c', `source ${scripts.fish}; complete -C '${line}'`],
        {
          encoding: 'utf8',
        },
      )
      assert.equal(stderr, '')
      const found = stdout
        .trim()
        .split('\n')
        .map((candidate) => candidate.split('\t')[0])
      assert.deepEqual(
        found.toSorted((a, b) => (a! < b! ? -1 : 1)),
        candidates,
      )
    })
  }
})

/** One session in a terminal of its own: there is no other way to have zsh complete. */
const zshSession = `
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell 'PS1=; autoload -U compinit; compinit -u -D; source ${scripts.zsh}; show() { zle expand-or-complete; print -r -- "<$BUFFER>"; BUFFER=; }; zle -N show; bindkey "^T" show; echo REA""DY'
zpty -r -m shell seen '*READY*'
for line in "$@"; do
  zpty -w -n shell "$line"$'\\x14'
  zpty -r -m shell seen '*<*>*'
  print -r -- "$seen"
done
`

describe('zsh', () => {
  const unique = cases.filter(([, candidates]) => candidates.length === 1)
  let completed: string[]
  beforeAll(async () => {
    await ensurePrograms(['zsh'])
    const lines = unique.map(([line]) => line)
    const { stdout } = spawnSync('zsh', ['-f', '-c', zshSession, 'zsh', ...lines], { encoding: 'utf8' })
    completed = Array.from(stdout.matchAll(/<([^<>]*)>/g), ([, line]) => line!)
  })
  for (const [index, [line, candidates]] of unique.entries()) {
    test(`completes ${line.replace(folder, '')}`, () => {
      const expected = [...line.split(' ').slice(0, -1), candidates[0]].join(' ')
      assert.ok(completed[index]?.startsWith(expected), `${completed[index]} for ${expected}`)
    })
  }
})

test('every command and option is in every script', async () => {
  const root = await commandLine()
  const paths = root.commands.flatMap((command) => [command].concat(command.commands))
  assert.ok(paths.length > 20)
  for (const shell of shells) {
    const script = kvmArm64(['completion', shell]).out
    for (const command of paths) {
      assert.ok(script.includes(command.name()), `${shell}: ${command.name()}`)
      for (const { long } of command.options) {
        const word = shell === 'fish' ? `-l ${long!.slice(2)}` : long!
        assert.ok(script.includes(word), `${shell}: ${command.name()} ${long}`)
      }
    }
  }
})
