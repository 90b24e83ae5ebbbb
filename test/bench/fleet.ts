/** Measures `kvm-arm64 fleet` on reports that come through a pipe, beside a Python program that only reads them and ANDs the bitmaps. */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { packageRoot } from '../../lib/package-root.js'

const main = fileURLToPath(new URL('dist/bundle/main.js', packageRoot))
const generator = fileURLToPath(new URL('dist/test/bench/generate-fleet.js', packageRoot))
const CLASSES = 20

const plainPython = `
import json, sys
masks = {}
for line in sys.stdin:
    for row in json.loads(line)["report"]["registers"]:
        if row.get("write", {}).get("rule") == "subset":
            masks[row["id"]] = masks.get(row["id"], -1) & int(row["write"]["of"], 16)
print({id: hex(mask) for id, mask in masks.items()})
`

interface Cost {
  seconds: number
  /** Most memory the reader had, bytes. */
  memory: number
}

function highWater(child: ChildProcess): number {
  try {
    const status = readFileSync(`/proc/${child.pid}/status`, 'utf8')
    return Number(/VmHWM:\s+(\d+) kB/.exec(status)?.[1] ?? 0) * 1024
  } catch {
    return 0
  }
}

/** From the start of both programs to the end of the reader. */
function readFleetBy(hosts: number, program: string, args: readonly string[]): Promise<Cost> {
  return new Promise((resolve, reject) => {
    const start = performance.now()
    const writer = spawn(process.execPath, [generator, `${hosts}`, `${CLASSES}`], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    const reader = spawn(program, args, { stdio: [writer.stdout, 'ignore', 'inherit'] })
    // The pipe is the reader's alone, so that it sees its end and the writer its closing.
    writer.stdout.destroy()
    let memory = 0
    const watch = setInterval(() => (memory = Math.max(memory, highWater(reader))), 100)
    reader.once('error', reject).once('exit', (status) => {
      clearInterval(watch)
      if (status === 0) resolve({ seconds: (performance.now() - start) / 1000, memory })
      else reject(new Error(`${program} ${args.join(' ')} ended with ${status}`))
    })
  })
}

export async function benchFleet(
  print: (what: string, value: string, bound: string, isWithin: boolean) => void,
): Promise<void> {
  const ours = (hosts: number): Promise<Cost> =>
    readFleetBy(hosts, process.execPath, [main, 'fleet', '-', '--json'])
  const few = await ours(10_000)
  const python = await readFleetBy(10_000, 'python3', ['-c', plainPython])
  const folder = mkdtempSync(join(tmpdir(), 'kvm-arm64-bench-tables-'))
  const tables = await readFleetBy(100_000, process.execPath, [main, 'fleet', '-', '--parquet', folder])
  rmSync(folder, { recursive: true })
  const [tenth, all] = [await ours(100_000), await ours(1_000_000)]
  print(
    `fleet of 10,000 whole reports, ${CLASSES} classes, all compared (Python, only the AND: ${python.seconds.toFixed(1)} s)`,
    `${few.seconds.toFixed(1)} s`,
    '≤ Python',
    few.seconds <= python.seconds,
  )
  const used = tables.memory / 1024 ** 3
  print(
    `fleet of 100,000 whole reports with tables (${tables.seconds.toFixed(1)} s), memory`,
    `${used.toFixed(2)} GiB`,
    '≤ 1 GiB',
    used <= 1,
  )
  print(
    `fleet of 1,000,000 whole reports through a pipe (100,000: ${tenth.seconds.toFixed(1)} s)`,
    `${all.seconds.toFixed(1)} s`,
    '≤ 60 s',
    all.seconds <= 60,
  )
  const gibibytes = all.memory / 1024 ** 3
  print('  memory of its reader', `${gibibytes.toFixed(2)} GiB`, '≤ 1.5 GiB', gibibytes <= 1.5)
  const growth = all.seconds / tenth.seconds
  print('  its time over that of a tenth', `${growth.toFixed(1)} ×`, '≤ 11 ×', growth <= 11)
}
