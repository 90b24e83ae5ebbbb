/**
 * Keeps predictions between runs: one file for each destination and way of making VMs. Its name contains a digest of all that decides
 * the answers besides the source: what matters of the destination, the VMM's rules by their name, features, baseline and the program
 * itself. A file begins with a digest of the rest; one that is damaged counts as absent and is replaced. Files are published whole, so
 * several runs may share the directory; of two that write the same file, the later one wins. At the end of a run, the files used
 * least recently are removed until the others take at most 256 MiB.
 */
import { readdirSync, readFileSync, renameSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { deflateRawSync, inflateRawSync } from 'node:zlib'
import { makeDirectories } from '../documents/directory.js'
import { packageRoot } from '../package-root.js'
import { canonicalJson, sha256 } from '../report/digest.js'
import type { Arrivals } from './moves.js'
import type { Maker } from './predict.js'

/** The directory of the cache: `$XDG_CACHE_HOME/kvm-arm64/predictions` or under `~/.cache`. */
export function predictionDirectory(): string {
  return join(process.env['XDG_CACHE_HOME'] || join(homedir(), '.cache'), 'kvm-arm64', 'predictions')
}

/** Bytes of all files after a run. */
const LIMIT = 256 * 1024 * 1024

const SUFFIX = '.arrivals'

export class PredictionCache {
  readonly #directory: string
  readonly #maker: string
  readonly #limit: number

  /** @param limit bytes of all files after {@link prune} */
  constructor(directory: string, { rules, features, elect }: Maker, limit = LIMIT) {
    this.#directory = directory
    this.#limit = limit
    this.#maker = canonicalJson({ program: program(), vmm: rules.name, features, elect })
  }

  /** Returns what is known about a destination; undefined if there is nothing, or if it is damaged. */
  read(destination: string): Arrivals | undefined {
    const file = this.#file(destination)
    try {
      const bytes = readFileSync(file)
      const end = bytes.indexOf('\n')
      const content = bytes.subarray(end + 1)
      if (sha256(content) !== bytes.toString('latin1', 0, end)) return undefined
      const now = new Date()
      utimesSync(file, now, now)
      return JSON.parse(inflateRawSync(content).toString()) as Arrivals
    } catch {
      // Whatever cannot be read is predicted anew.
      return undefined
    }
  }

  /** Keeps answers. Where that is not possible, as on a full disk, they are predicted again next time. */
  write(destination: string, arrivals: Arrivals): void {
    const content = deflateRawSync(JSON.stringify(arrivals), { level: 1 })
    const file = this.#file(destination)
    const draft = `${file}.${process.pid}`
    onlyFileErrors(() => {
      makeDirectories(this.#directory, 0o700)
      // Not synchronised with the disk: after a crash, the digest shows what is missing.
      writeFileSync(draft, Buffer.concat([Buffer.from(`${sha256(content)}\n`), content]))
      renameSync(draft, file)
    })
  }

  /** Removes the files used least recently. */
  prune(): void {
    onlyFileErrors(() => {
      const files = readdirSync(this.#directory)
        .filter((name) => name.includes(SUFFIX))
        .flatMap((name) => {
          const path = join(this.#directory, name)
          // Another process may have removed it.
          const stats = statSync(path, { throwIfNoEntry: false })
          return stats === undefined ? [] : [{ path, size: stats.size, used: stats.mtimeMs }]
        })
        .toSorted((a, b) => b.used - a.used)
      let total = 0
      for (const { path, size } of files) {
        total += size
        if (total > this.#limit) rmSync(path, { force: true })
      }
    })
  }

  #file(destination: string): string {
    return join(this.#directory, `${sha256(`${this.#maker} ${destination}`).slice(0, 40)}${SUFFIX}`)
  }
}

/** Returns a digest of the program: another build may judge otherwise. */
function program(): string {
  const folder = fileURLToPath(new URL(isSource ? 'lib/' : 'dist/bundle/', packageRoot))
  const files = readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith(isSource ? '.ts' : '.js'))
    .toSorted()
  return sha256(files.map((file) => `${file} ${sha256(readFileSync(join(folder, file)))}\n`).join(''))
}

const isSource = import.meta.url.endsWith('.ts')

function onlyFileErrors(action: () => void): void {
  try {
    action()
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === undefined) throw error
  }
}
