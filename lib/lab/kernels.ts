import { existsSync } from 'node:fs'
import { copyFile, mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { aptCache, arm64Packages, unpack, updateIndexes } from './apt.js'
import { cachePath, publish, withCacheLock } from './cache.js'
import { LabError } from './errors.js'

/** Page sizes for which Debian builds kernels. */
export const labPages = ['4k', '16k'] as const
export type LabPages = (typeof labPages)[number]

/** A Debian arm64 kernel the lab can boot. */
export interface LabKernel {
  /** The kernel's `uname -r`: `6.12.107+deb13-arm64`. */
  release: string
  /** The kernel series: `6.12`. */
  series: string
  /** The Debian package version: `6.12.107-1`. */
  version: string
  /** The suite it comes from: `trixie-security`. */
  suite: string
  /** The size of its pages. */
  pages: LabPages
  cached: boolean
}

/** A kernel in the cache, ready to boot. */
interface KernelFiles {
  /** Absent if the kernel came from a file. */
  kernel?: LabKernel
  image: string
  /** Modules to load before the lab can communicate with the machine, in order; empty if the drivers are built in. */
  modules: string[]
}

type Say = (message: string) => void

/** The drivers of the lab's ports, each after those it needs. */
const consoleModules = [
  'virtio/virtio',
  'virtio/virtio_ring',
  'virtio/virtio_pci_legacy_dev',
  'virtio/virtio_pci_modern_dev',
  'virtio/virtio_pci',
  'char/virtio_console',
]

/** Returns the kernels in the cache, newest first. */
export async function cachedKernels(): Promise<LabKernel[]> {
  const names = await readdir(cachePath('kernels')).catch(() => [])
  const kernels = await Promise.all(names.map(cachedKernel))
  return kernels.toSorted(newestFirst)
}

async function cachedKernel(name: string): Promise<LabKernel> {
  const kernel = JSON.parse(await readFile(cachePath('kernels', name, 'kernel.json'), 'utf8')) as LabKernel
  // Earlier versions of this package cached kernels without their page size.
  return { ...kernel, pages: pagesOf(name) }
}

/** Returns every available kernel: those in the cache and those the Debian mirror offers, newest first. */
export async function listKernels(
  options: { signal?: AbortSignal; progress?: Say } = {},
): Promise<LabKernel[]> {
  return await withCacheLock(async () => {
    options.progress?.('asking the Debian mirror for its kernels')
    await updateIndexes(arm64Packages, false, options.signal)
    const cached = await cachedKernels()
    const offered = await offeredKernels(options.signal)
    const has = new Set(cached.map(({ release }) => release))
    return [...cached, ...offered.filter(({ release }) => !has.has(release))].toSorted(newestFirst)
  }, options.signal)
}

/**
 * Returns the files of a kernel: the newest in the cache that matches `wanted`, or else the newest that can be downloaded.
 *
 * @param wanted a series (`6.12`), a package version (`5.10.223`) or a release (`6.12.107+deb13-arm64`)
 * @param options.pages its page size; by default that of the release, and for a series or a version `4k`
 * @throws LabError `ERR_LAB_UNKNOWN_KERNEL`, `ERR_LAB_DOWNLOAD`, `ERR_LAB_DISK_FULL`
 */
export async function ensureKernel(
  wanted: string,
  { pages = pagesOf(wanted), ...options }: { pages?: LabPages; signal?: AbortSignal; progress?: Say } = {},
): Promise<KernelFiles> {
  const fits = (kernel: LabKernel): boolean => kernel.pages === pages && matchesKernel(kernel, wanted)
  const cached = (await cachedKernels()).find(fits)
  if (cached) return await kernelFiles(cached)
  return await withCacheLock(async () => {
    const fetchedMeanwhile = (await cachedKernels()).find(fits)
    return await kernelFiles(fetchedMeanwhile ?? (await fetchKernel(wanted, pages, fits, options)))
  }, options.signal)
}

function pagesOf(release: string): LabPages {
  return release.endsWith('-16k') ? '16k' : '4k'
}

async function fetchKernel(
  wanted: string,
  pages: LabPages,
  fits: (kernel: LabKernel) => boolean,
  { signal, progress }: { signal?: AbortSignal; progress?: Say },
): Promise<LabKernel> {
  let failure: unknown
  // An index from this morning may name packages that have been replaced since.
  for (const force of [false, true]) {
    progress?.('asking the Debian mirror for its kernels')
    await updateIndexes(arm64Packages, force, signal)
    const offered = await offeredKernels(signal)
    const candidates = offered.filter(fits)
    if (candidates.length === 0) throw unknownKernel(wanted, pages, offered)
    for (const kernel of candidates) {
      progress?.(`downloading kernel ${kernel.release} (${kernel.suite})`)
      try {
        await publish(join('kernels', kernel.release), (target) => unpackKernel(kernel, target, signal))
        return { ...kernel, cached: true }
      } catch (error) {
        // Indexes of old suites name kernels that the mirror has dropped; an older one of the series may still be there.
        if (!(error instanceof LabError && error.code === 'ERR_LAB_DOWNLOAD' && / 404 /.test(error.message)))
          throw error
        failure = error
      }
    }
  }
  throw failure
}

async function unpackKernel(kernel: LabKernel, target: string, signal?: AbortSignal): Promise<void> {
  const tree = join(target, 'tree')
  const name = `linux-image-${kernel.release}=${kernel.version}`
  // Newer packages contain no image but depend on the one that does.
  const depends = await aptCache(arm64Packages, ['show', '--no-all-versions', name], signal)
  const binary = /\b(linux-binary-[^\s,]+) \(= ([^)]+)\)/.exec(depends)
  await unpack(arm64Packages, [binary ? `${binary[1]}=${binary[2]}` : name], tree, signal)

  const images = [
    join(tree, 'boot', `vmlinuz-${kernel.release}`),
    join(tree, 'usr/lib/modules', kernel.release, 'vmlinuz'),
  ]
  const image = images.find((path) => existsSync(path))
  if (!image)
    throw new LabError('ERR_LAB_DOWNLOAD', `the package of kernel ${kernel.release} contains no image`)
  await copyFile(image, join(target, 'image'))
  await mkdir(join(target, 'modules'))
  let order = 0
  for (const module of consoleModules) {
    const path = join(tree, 'lib/modules', kernel.release, 'kernel/drivers', `${module}.ko`)
    if (existsSync(path)) await copyFile(path, join(target, 'modules', `${order++}-${basename(path)}`))
  }
  const facts: LabKernel = { ...kernel, cached: true }
  await writeFile(join(target, 'kernel.json'), `${JSON.stringify(facts, null, 2)}\n`)
  await rm(tree, { recursive: true })
}

async function kernelFiles(kernel: LabKernel): Promise<KernelFiles> {
  const directory = cachePath('kernels', kernel.release)
  const modules = (await readdir(join(directory, 'modules'))).toSorted()
  return {
    kernel,
    image: join(directory, 'image'),
    modules: modules.map((name) => join(directory, 'modules', name)),
  }
}

/** Returns the generic kernels of all suites, newest first: no cloud or real-time ones, no debug symbols. */
async function offeredKernels(signal?: AbortSignal): Promise<LabKernel[]> {
  const names = (await aptCache(arm64Packages, ['pkgnames', 'linux-image-'], signal)).split('\n')
  const generic = names.filter(
    (name) =>
      /^linux-image-\d+\.\d+\.\d+([-+][\w.+]+)*?-arm64(-16k)?$/.test(name) && !/-(cloud|rt)-arm64/.test(name),
  )
  const table = await aptCache(arm64Packages, ['madison', ...generic], signal)
  const kernels = new Map<string, LabKernel>()
  for (const line of table.split('\n')) {
    const [name, version, place] = line.split('|').map((cell) => cell.trim())
    const suite = place?.split(' ')[1]?.split('/')[0]
    if (!name || !version || !suite) continue
    const release = name.replace('linux-image-', '')
    const series = /^\d+\.\d+/.exec(release)?.[0] ?? release
    const known = kernels.get(release)
    if (!known || compareVersions(version, known.version) > 0) {
      kernels.set(release, { release, series, version, suite, pages: pagesOf(release), cached: false })
    }
  }
  return [...kernels.values()].toSorted(newestFirst)
}

/** Returns whether a kernel matches a series, a release, or the start of its release or package version. */
export function matchesKernel(
  { release, version }: Pick<LabKernel, 'release' | 'version'>,
  wanted: string,
): boolean {
  return [release, version].some(
    (name) =>
      name === wanted ||
      (name.startsWith(wanted) && /^[\d.]*\d$/.test(wanted) && !/^\d/.test(name.slice(wanted.length))),
  )
}

function unknownKernel(wanted: string, pages: LabPages, offered: LabKernel[]): LabError {
  const fitting = offered.filter((kernel) => kernel.pages === pages)
  const series = [...new Set(fitting.map((kernel) => kernel.series))]
  const kind = pages === '4k' ? '' : ` with ${pages} pages`
  return new LabError(
    'ERR_LAB_UNKNOWN_KERNEL',
    `no kernel ${wanted}${kind} is available; available: ${series.join(', ')} (kvm-arm64 lab kernels lists them all)`,
  )
}

function newestFirst(a: LabKernel, b: LabKernel): number {
  return compareVersions(b.version, a.version)
}

/** Compares Debian package versions; `~` sorts before everything, even the end. */
export function compareVersions(a: string, b: string): number {
  const [left = [], right = []] = [a, b].map((version) => version.match(/\d+|[^\d]/g) ?? [])
  for (let index = 0; index < Math.max(left.length, right.length); index++) {
    const [x = '', y = ''] = [left[index], right[index]]
    if (x === y) continue
    if (/^\d/.test(x) && /^\d/.test(y)) {
      if (Number(x) !== Number(y)) return Number(x) - Number(y)
      continue
    }
    return rank(x) - rank(y)
  }
  return 0
}

function rank(part: string): number {
  if (part === '~') return -1
  if (part === '' || /^\d/.test(part)) return 0
  return /[a-z]/i.test(part) ? part.charCodeAt(0) : part.charCodeAt(0) + 256
}
