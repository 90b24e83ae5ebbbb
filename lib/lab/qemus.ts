/** QEMUs other than the one installed: fetched through apt with every library they need, and cached. */
import { existsSync } from 'node:fs'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { type AptDirectory, aptCache, unpackWithDependencies, updateIndexes } from './apt.js'
import { cachePath, publish, withCacheLock } from './cache.js'
import { LabError } from './errors.js'
import { executeOrFail, isInstalled } from './execute.js'
import { compareVersions } from './kernels.js'

/** A QEMU that emulates arm64: a command and the arguments that precede a machine's own. */
export interface QemuProgram {
  /** As `--version` prints it: `7.2.22`. */
  version: string
  command: string
  args: readonly string[]
}

interface Work {
  signal?: AbortSignal
  progress?: (message: string) => void
}

const program = 'qemu-system-aarch64'

/** Programs of this machine's own architecture. Suites by the QEMUs they bring: 10.0, 11.1, the newest. */
function qemuPackages(architecture: string): AptDirectory {
  return {
    name: 'apt-qemu',
    architecture,
    suites: ['trixie', 'trixie-backports', 'sid'],
    securitySuites: [],
  }
}

/**
 * Returns the installed QEMU.
 *
 * @throws LabError `ERR_LAB_NO_QEMU`
 */
export async function installedQemu({ signal }: Work = {}): Promise<QemuProgram> {
  if (!isInstalled(program)) {
    throw new LabError('ERR_LAB_NO_QEMU', `${program} is not installed; run: kvm-arm64 lab setup`)
  }
  const version = /version ([\d.]+)/.exec(await executeOrFail(program, ['--version'], signal))?.[1]
  return { version: version ?? 'unknown', command: program, args: [] }
}

/**
 * Returns the newest cached QEMU that matches `wanted`, or else the newest that Debian offers, which it downloads.
 *
 * @param wanted a version or its beginning: `11.1`
 * @throws LabError `ERR_LAB_UNKNOWN_QEMU`, `ERR_LAB_DOWNLOAD`, `ERR_LAB_DISK_FULL`
 */
export async function ensureQemu(wanted: string, work: Work = {}): Promise<QemuProgram> {
  const cached = await cachedQemu(wanted)
  if (cached !== undefined) return await cachedProgram(cached)
  return await withCacheLock(
    async () => await cachedProgram((await cachedQemu(wanted)) ?? (await fetchQemu(wanted, work))),
    work.signal,
  )
}

/** Returns the names of the CPUs that a QEMU emulates. */
export async function cpusOf({ command, args }: QemuProgram, signal?: AbortSignal): Promise<string[]> {
  const help = await executeOrFail(command, [...args, '-machine', 'virt', '-cpu', 'help'], signal)
  return help
    .split('\n')
    .slice(1)
    .map((line) => line.trim())
    .filter((line) => line !== '')
}

async function cachedQemu(wanted: string): Promise<string | undefined> {
  const versions = await readdir(cachePath('qemu')).catch(() => [])
  return versions.filter((version) => isVersion(version, wanted)).toSorted(newestFirst)[0]
}

function isVersion(version: string, wanted: string): boolean {
  return version === wanted || version.startsWith(`${wanted}.`)
}

function newestFirst(a: string, b: string): number {
  return compareVersions(b, a)
}

/** Starts the program by its own loader: the libraries of the machine may be older than those it needs. */
async function cachedProgram(version: string): Promise<QemuProgram> {
  const tree = cachePath('qemu', version)
  const parent = join(tree, 'usr/lib')
  for (const folder of await readdir(parent)) {
    const libraries = join(parent, folder)
    const loader = (await readdir(libraries).catch(() => [])).find((name) => /^ld-linux-.*\.so\./.test(name))
    if (loader === undefined || !existsSync(join(libraries, 'libc.so.6'))) continue
    const roms = [join(tree, 'usr/share/qemu'), join(tree, 'usr/share/seabios')]
    const args = [
      ['--library-path', libraries, join(tree, 'usr/bin', program)],
      ...roms.map((path) => ['-L', path]),
    ]
    return { version, command: join(libraries, loader), args: args.flat() }
  }
  throw new LabError('ERR_LAB_CACHE', `${tree} holds no loader; delete it to have it fetched again`)
}

async function fetchQemu(wanted: string, { signal, progress }: Work): Promise<string> {
  const architecture = (await executeOrFail('dpkg', ['--print-architecture'], signal)).trim()
  const packages = qemuPackages(architecture)
  let failure: unknown
  // An index from this morning may name packages that have been replaced since.
  for (const force of [false, true]) {
    progress?.('asking the Debian mirror for its QEMUs')
    await updateIndexes(packages, force, signal)
    const offered = await offeredQemus(packages, signal)
    const found = offered.find(({ version }) => isVersion(version, wanted))
    if (found === undefined) {
      const all = [...new Set(offered.map(({ version }) => version))].join(', ')
      throw new LabError('ERR_LAB_UNKNOWN_QEMU', `no QEMU ${wanted} is available; available: ${all}`)
    }
    const { version, suite } = found
    progress?.(`downloading QEMU ${version} (${suite})`)
    try {
      await publish(join('qemu', version), (target) =>
        unpackWithDependencies(packages, { name: 'qemu-system-arm', suite }, target, signal),
      )
      return version
    } catch (error) {
      if (!(error instanceof LabError && error.code === 'ERR_LAB_DOWNLOAD')) throw error
      failure = error
    }
  }
  throw failure
}

/** Returns what the suites offer, newest first; of one version in two suites the one of the newer suite, which its libraries fit. */
async function offeredQemus(
  packages: AptDirectory,
  signal?: AbortSignal,
): Promise<{ version: string; suite: string }[]> {
  const table = await aptCache(packages, ['madison', 'qemu-system-arm'], signal)
  const offers = table.split('\n').flatMap((line) => {
    const [, debian, place] = line.split('|').map((cell) => cell.trim())
    const version = /^(?:\d+:)?([\d.]+)/.exec(debian ?? '')?.[1]
    const suite = place?.split(' ')[1]?.split('/')[0]
    return version === undefined || suite === undefined ? [] : [{ version, suite }]
  })
  return offers.toSorted(
    (a, b) =>
      newestFirst(a.version, b.version) ||
      packages.suites.indexOf(b.suite) - packages.suites.indexOf(a.suite),
  )
}
