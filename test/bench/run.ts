/**
 * Measures the library beside a plain C program that does the same work in the same boot of the same machine, and what a user waits
 * for. Prints one line for each with what it should stay within.
 */
import { execFileSync, spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { bootLab } from '../../lib/lab/index.js'
import { packageRoot } from '../../lib/package-root.js'
import { benchFleet } from './fleet.js'
import { benchGate } from './gate.js'
import { registerAccesses, replayedCalls } from './simulator.js'

const root = fileURLToPath(packageRoot)
const commandFile = join(root, 'dist/bundle/main.js')
const ROUNDS = 5

/** Nanoseconds for each operation. */
type Costs = Record<'get' | 'batch' | 'exit', number>
/** Writes to a device in `run()`: an exit that JavaScript sees, and one that the vCPU's thread answers. */
type Runs = Record<'handedOver' | 'posted', number>
/** What a single get consists of: an empty Node-API call, one with a bigint in and a bigint out, and one with the ioctl between. */
type Parts = Record<'empty' | 'echo' | 'together', number>

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]!
}

function print(what: string, value: string, bound: string, isWithin: boolean): void {
  console.log(
    `${what.padEnd(58)} ${value.padStart(10)}   ${bound.padEnd(12)} ${isWithin ? 'within' : 'BEYOND'}`,
  )
}

async function ratiosToC(): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'kvm-arm64-bench-'))
  try {
    const compiler = process.arch === 'arm64' ? 'gcc' : 'aarch64-linux-gnu-gcc'
    const program = join(folder, 'kvm')
    execFileSync(compiler, ['-O2', '-static', '-o', program, join(root, 'test/bench/kvm.c')])
    const parts = join(folder, 'parts.node')
    execFileSync(compiler, ['-O2', '-shared', '-fPIC', '-o', parts, join(root, 'test/bench/parts.c')])
    await using lab = await bootLab({
      kernel: '6.12',
      copy: ['dist', 'prebuilds', 'package.json', program, parts],
    })
    const measure = async <T>(...what: string[]): Promise<T> => {
      const { status, stdout, stderr } = await lab.run(what)
      if (status !== 0) throw new Error(`${what.join(' ')}: ${String(stderr)}`)
      return JSON.parse(stdout.toString()) as T
    }
    // The two in turn, and of each the best: what else the machine does only ever adds.
    const runs: { library: Costs & Parts & Runs; c: Costs }[] = []
    for (let round = 0; round < ROUNDS; round++) {
      const library = await measure<Costs & Parts & Runs>('node', 'dist/test/bench/kvm.js', 'parts.node')
      runs.push({ library, c: await measure<Costs>('./kvm') })
    }
    const best = (whose: 'library' | 'c', what: keyof Costs): number =>
      Math.min(...runs.map((costs) => costs[whose][what]))
    const ratio = (what: keyof Costs): number => best('library', what) / best('c', what)
    const cost = (what: keyof Costs): string => `${best('library', what)} ns, C ${best('c', what)} ns`
    const [batch, exits] = [ratio('batch'), 1 / ratio('exit')]
    print(
      `batch read of the register list (${cost('batch')})`,
      `${batch.toFixed(2)} × C`,
      '≤ 1.10 × C',
      batch <= 1.1,
    )
    const part = (what: keyof Parts): number => Math.min(...runs.map(({ library }) => library[what]))
    const get = best('library', 'get') / part('together')
    print(
      `single get (${cost('get')}, empty call ${part('empty')} ns, with bigints ${part('echo')} ns, with both ${part('together')} ns)`,
      `${get.toFixed(2)} × parts`,
      '≤ 1.15 × parts',
      get <= 1.15,
    )
    print(`MMIO exits per second (${cost('exit')})`, `${exits.toFixed(2)} × C`, '≥ 0.4 × C', exits >= 0.4)
    const [posted, handedOver] = (['posted', 'handedOver'] as const).map((what) =>
      Math.min(...runs.map(({ library }) => library[what])),
    ) as [number, number]
    const run = posted / best('library', 'exit')
    print(
      `posted write in run() (${posted} ns; handed over ${handedOver} ns)`,
      `${run.toFixed(2)} × sync`,
      '≤ 1.3 × sync',
      run <= 1.3,
    )
  } finally {
    rmSync(folder, { recursive: true })
  }
}

/** Milliseconds from the command's start to its first byte on stdout. */
function untilFirstOutput(...what: string[]): Promise<number> {
  return new Promise((resolve, reject) => {
    const start = performance.now()
    const child = spawn(process.execPath, what, { stdio: ['ignore', 'pipe', 'inherit'] })
    child.stdout.once('data', () => resolve(performance.now() - start))
    child.once('exit', (status) =>
      reject(new Error(`${what.join(' ')} ended with ${status} and said nothing`)),
    )
  })
}

/** Milliseconds of processor time, of user and system together. A command may answer no. */
function processorTime(...what: string[]): number {
  const times = execFileSync('bash', [
    '-c',
    'TIMEFORMAT="%U %S"; { time { "$@" > /dev/null; test $? -le 1; }; } 2>&1',
    'time',
    process.execPath,
    ...what,
  ])
  const [user, system] = times.toString().trim().split('\n').at(-1)!.split(' ').map(Number)
  return (user! + system!) * 1000
}

function rounds(measure: () => number): number {
  return median(Array.from({ length: ROUNDS }, measure))
}

await ratiosToC()

const boots: number[] = []
for (let round = 0; round < 3; round++) {
  boots.push(await untilFirstOutput(commandFile, 'lab', 'run', '--kernel', '6.12', '--', 'node', '-p', '1'))
}
const boot = median(boots) / 1000
print('lab run to the first line of node inside', `${boot.toFixed(1)} s`, '≤ 8 s', boot <= 8)

const bare = rounds(() => processorTime('-e', '0'))

/** How many times the processor time of `node -e 0` a command takes beyond it. */
function overNode(command: readonly string[]): number {
  return (rounds(() => processorTime(...command)) - bare) / bare
}

const entry = new URL('dist/bundle/index.js', packageRoot).href
const imports = ['--input-type=module', '-e', `import ${JSON.stringify(entry)}`]
const probe = [commandFile, 'probe', '--simulate', 'linux-6.12-neoverse-n1']
// Milliseconds on a machine on which node -e 0 takes 40 of them; a slower one has as many times more.
for (const [what, milliseconds, ...command] of [
  ['import of the library, processor time over node -e 0', 25, ...imports],
  ['kvm-arm64 --help, processor time over node -e 0', 60, commandFile, '--help'],
  ['probe of a simulated host, processor time over node -e 0', 150, ...probe],
] as const) {
  const over = overNode(command)
  const bound = milliseconds / 40
  print(what, `${over.toFixed(2)} × it`, `≤ ${bound.toFixed(2)} × it`, over <= bound)
}

benchGate(print, commandFile, overNode)
await benchFleet(print)

for (const [what, bound, measure] of [
  ['get and set of the simulator, a second of processor time', 1e6, registerAccesses],
  ['calls of a trace replayed, a second of processor time', 2e5, replayedCalls],
] as const) {
  const calls = measure()
  print(what, `${(calls / 1e6).toFixed(2)} M`, `≥ ${bound / 1e6} M`, calls >= bound)
}
