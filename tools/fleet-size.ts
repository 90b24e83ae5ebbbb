/**
 * `npm run tool fleet-size [CLASSES]`: measures `kvm-arm64 fleet` on many classes, made from every recorded host as revisions, services
 * and other kernels change it: with an empty cache, and with all predictions in it. The result must be the same byte for byte.
 */
import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { availableParallelism, tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { MAX_COMPARED } from '../lib/fleet/compared.js'
import { packageRoot } from '../lib/package-root.js'

const main = fileURLToPath(new URL('dist/bundle/main.js', packageRoot))
const generator = fileURLToPath(new URL('dist/test/bench/generate-fleet.js', packageRoot))
const classes = Number(process.argv[2] ?? MAX_COMPARED)

/** Of one run of the command, with all its threads. */
interface Run {
  seconds: number
  /** Of processors, in seconds. */
  processor: number
  /** Most memory, bytes. */
  memory: number
  /** Bytes of the document. */
  document: number
  digest: string
}

function fleet(cache: string): Promise<Run> {
  return new Promise((resolve, reject) => {
    const start = performance.now()
    const writer = spawn(process.execPath, [generator, `${classes * 10}`, `${classes}`, '--all'], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    const reader = spawn(process.execPath, [main, 'fleet', '-', '--json'], {
      stdio: [writer.stdout, 'pipe', 'inherit'],
      env: { ...process.env, XDG_CACHE_HOME: cache },
    })
    writer.stdout.destroy()
    const hash = createHash('sha256')
    const run: Run = { seconds: 0, processor: 0, memory: 0, document: 0, digest: '' }
    reader.stdout.on('data', (chunk: Buffer) => {
      run.document += chunk.length
      hash.update(chunk)
    })
    const watch = setInterval(() => {
      try {
        const status = readFileSync(`/proc/${reader.pid}/status`, 'utf8')
        // A process that has ended and is not collected yet has no such line.
        const highest = Number(/VmHWM:\s+(\d+) kB/.exec(status)?.[1] ?? 0) * 1024
        run.memory = Math.max(run.memory, highest)
        const fields = readFileSync(`/proc/${reader.pid}/stat`, 'utf8').split(') ')[1]!.split(' ')
        // utime and stime, in hundredths of a second.
        run.processor = (Number(fields[11]) + Number(fields[12])) / 100
      } catch {
        // It has ended.
      }
    }, 100)
    reader.once('error', reject).once('close', (status) => {
      clearInterval(watch)
      run.seconds = (performance.now() - start) / 1000
      run.digest = hash.digest('hex')
      if (status === 0) resolve(run)
      else reject(new Error(`kvm-arm64 fleet ended with ${status}`))
    })
  })
}

const cache = mkdtempSync(join(tmpdir(), 'kvm-arm64-fleet-size-'))
try {
  console.log(`${classes} classes, ${availableParallelism()} processors`)
  const digests = new Set<string>()
  for (const what of ['all predicted', 'all from the cache']) {
    const { seconds, processor, memory, document, digest } = await fleet(cache)
    const figures = [
      `${processor.toFixed(1)} s of processors`,
      `${(memory / 1024 ** 3).toFixed(2)} GiB`,
      `a document of ${(document / 1024 ** 2).toFixed(0)} MiB`,
    ]
    console.log(`${what}: ${seconds.toFixed(1)} s, ${figures.join(', ')}`)
    digests.add(digest)
  }
  if (digests.size > 1) throw new Error('the documents differ')
} finally {
  rmSync(cache, { recursive: true })
}
