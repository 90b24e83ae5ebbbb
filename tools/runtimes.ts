/**
 * Tries the package on every runtime it is for, `npm run tool runtimes`, and writes what it found to docs/runtimes.md: the unit tests
 * and the simulator here, and the addon on a real kernel in the lab.
 */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fetched, openKvmOn, runtimes, type Said, simulateOn } from '../test/lab/runtimes.js'
import { root } from '../test/package/pack.js'

function unitTests(program: string): string {
  const folder = mkdtempSync(join(tmpdir(), 'kvm-arm64-runtimes-'))
  try {
    const file = join(folder, 'results.json')
    const vitest = ['node_modules/vitest/vitest.mjs', 'run', '--project', 'unit']
    const { status } = spawnSync(program, [...vitest, '--reporter=json', `--outputFile=${file}`], {
      cwd: root,
      stdio: ['ignore', 'ignore', 'inherit'],
    })
    const { numPassedTests, numFailedTests } = JSON.parse(readFileSync(file, 'utf8')) as Record<
      string,
      number
    >
    if (status !== 0) process.exitCode = 1
    return `${numPassedTests} passed, ${numFailedTests} failed`
  } finally {
    rmSync(folder, { recursive: true })
  }
}

/** The output of a program, in one cell of a table. */
function cell({ status, stdout, stderr }: Said): string {
  if (status === 0) return stdout.trim()
  process.exitCode = 1
  return `fails: ${stderr.trim().split('\n').at(-1) ?? ''}`
}

const here = process.arch === 'arm64' ? 'arm64' : 'x64'
const rows: string[][] = []
for (const runtime of runtimes) {
  const version = (arch: 'x64' | 'arm64'): string => runtime.packages[arch].split('@').at(-1)!
  const row = [
    `${runtime.name} ${version(here)}`,
    runtime.isNode ? unitTests(fetched(runtime, here)) : 'not tried: they need Node.js',
    cell(simulateOn(runtime, here)),
    `${version('arm64')}: ${cell(await openKvmOn(runtime))}`,
  ]
  console.log(row.join(' | '))
  rows.push(row)
}

const heads = [
  'Runtime',
  `Unit tests (${here})`,
  `Simulator (${here})`,
  'Addon on real KVM (arm64, in the lab)',
]
const lines = [heads, heads.map(() => '---'), ...rows]
writeFileSync(
  join(root, 'docs/runtimes.md'),
  `# Runtimes tried

The last two columns are one program (\`test/lab/smoke.mjs\`): it opens KVM, makes a VM with a vCPU, sets a register, runs a guest that
asks for the version of PSCI, and closes everything. \`npm run tool runtimes\` tries all again and writes this page.

${lines.map((cells) => `| ${cells.join(' | ')} |`).join('\n')}
`,
)
