import { existsSync } from 'node:fs'
import { mkdir, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { cachePath } from './cache.js'
import { LabError } from './errors.js'
import { execute, executeOrFail, lastLine } from './execute.js'

/**
 * A private apt directory for the packages of one architecture from several Debian suites, so that the machine's own apt stays
 * unchanged and root is not needed. It uses the mirror of the machine's apt configuration; apt checks signatures and hashes.
 */
export interface AptDirectory {
  /** Its name in the cache. */
  name: string
  /** Debian's name of the architecture. */
  architecture: string
  suites: readonly string[]
  securitySuites: readonly string[]
}

/** For what runs inside the machine. Suites by the kernels they bring: 5.10, 6.1, 6.12, 6.12 to 7.x, the newest. */
export const arm64Packages: AptDirectory = {
  name: 'apt',
  architecture: 'arm64',
  suites: ['bullseye', 'bookworm', 'trixie', 'trixie-backports', 'sid'],
  securitySuites: ['bullseye-security', 'bookworm-security', 'trixie-security'],
}

/** The source of glibc and busybox: a suite in which all of them fit together. */
export const userlandSuite = 'trixie'

const keyrings = ['gpg', 'pgp'].map((end) => `/usr/share/keyrings/debian-archive-keyring.${end}`)
const indexLifetime = 24 * 60 * 60 * 1000

/** The machine's Debian mirrors, found in its apt sources; `KVM_ARM64_LAB_MIRROR` names one if it has none. */
export async function mirrors(signal?: AbortSignal): Promise<{ main: string; security: string }> {
  const given = process.env['KVM_ARM64_LAB_MIRROR']
  const requests = given ? '' : await executeOrFail('apt-get', ['update', '--print-uris'], signal)
  const find = (suite: string) =>
    new RegExp(`'(?!cdrom:)([^']+?)/*/dists/${suite}/(?:In)?Release'`).exec(requests)?.[1]
  const codename = '(?:bullseye|bookworm|trixie|forky|duke|sid|(?:old)*stable|testing|unstable)'
  const main = given?.replace(/\/+$/, '') ?? find(`${codename}(?:-updates|-backports)?`)
  if (!main) {
    throw new LabError(
      'ERR_LAB_DOWNLOAD',
      "this machine's apt has no Debian mirror; put the address of one in KVM_ARM64_LAB_MIRROR (http://…/debian)",
    )
  }
  return { main, security: find(`${codename}-security`) ?? `${main}-security` }
}

function pathIn({ name }: AptDirectory, ...parts: string[]): string {
  return cachePath(name, ...parts)
}

function configurationOf(apt: AptDirectory): string {
  return pathIn(apt, 'apt.conf')
}

/** Updates the indexes unless they are less than a day old. Call it while holding the cache's lock. */
export async function updateIndexes(apt: AptDirectory, force = false, signal?: AbortSignal): Promise<void> {
  for (const name of ['etc/preferences.d', 'state/lists/partial', 'cache/archives/partial']) {
    await mkdir(pathIn(apt, name), { recursive: true })
  }
  await writeFile(configurationOf(apt), settings(apt))
  const stamp = pathIn(apt, 'updated')
  const age = await stat(stamp).then(
    ({ mtimeMs }) => Date.now() - mtimeMs,
    () => Infinity,
  )
  if (age < indexLifetime && !force) return

  await writeFile(pathIn(apt, 'etc/lab.sources'), await sources(apt, signal))
  await writeFile(pathIn(apt, 'state/status'), '')
  // If a suite is gone or cannot be verified, only its own packages are missing.
  const { stderr } = await execute('apt-get', ['-c', configurationOf(apt), '-q', 'update'], signal).finally(
    () => rm(pathIn(apt, 'state/lists/partial'), { recursive: true, force: true }),
  )
  if (!(await aptCache(apt, ['pkgnames', 'libc6'], signal)).includes('libc6')) {
    throw new LabError('ERR_LAB_DOWNLOAD', `apt could not fetch the package indexes: ${lastLine(stderr)}`)
  }
  await writeFile(stamp, stderr)
}

async function sources(
  { architecture, suites, securitySuites }: AptDirectory,
  signal?: AbortSignal,
): Promise<string> {
  const keyring = keyrings.find((path) => existsSync(path))
  if (!keyring) {
    throw new LabError(
      'ERR_LAB_TOOL',
      'the package debian-archive-keyring is missing; run: kvm-arm64 lab setup',
    )
  }
  const { main, security } = await mirrors(signal)
  const stanza = (uri: string, names: readonly string[]) => `Types: deb
URIs: ${uri}
Suites: ${names.join(' ')}
Components: main
Architectures: ${architecture}
Targets: Packages
Signed-By: ${keyring}
`
  return [
    stanza(main, suites),
    ...(securitySuites.length > 0 ? [stanza(security, securitySuites)] : []),
  ].join('\n')
}

/** Read after the machine's own configuration, so the machine's proxy and credentials apply. */
function settings(apt: AptDirectory): string {
  const root = pathIn(apt)
  return `Dir::Etc::sourcelist "${root}/etc/lab.sources";
Dir::Etc::sourceparts "-";
Dir::Etc::preferences "-";
Dir::Etc::preferencesparts "${root}/etc/preferences.d";
Dir::State "${root}/state";
Dir::State::lists "${root}/state/lists";
Dir::State::status "${root}/state/status";
Dir::Cache "${root}/cache";
Dir::Cache::archives "archives";
Dir::Cache::pkgcache "pkgcache.bin";
Dir::Cache::srcpkgcache "";
#clear APT::Architectures;
APT::Architecture "${apt.architecture}";
APT::Architectures { "${apt.architecture}"; };
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::GzipIndexes "true";
// The releases of old suites are not signed anew any more: their signature still holds, their date has passed.
Acquire::Check-Valid-Until "false";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
`
}

/** Queries apt about the packages of all suites. */
export function aptCache(apt: AptDirectory, args: string[], signal?: AbortSignal): Promise<string> {
  return executeOrFail('apt-cache', ['-c', configurationOf(apt), ...args], signal)
}

/** Downloads packages (`name`, `name=version`, `name/suite`) and unpacks them into `target`. */
export async function unpack(
  apt: AptDirectory,
  packages: string[],
  target: string,
  signal?: AbortSignal,
): Promise<void> {
  await download(apt, ['download', ...packages], target, signal)
}

/** Like {@link unpack} for one package of a suite, together with everything it depends on, to the C library. */
export async function unpackWithDependencies(
  apt: AptDirectory,
  { name, suite }: { name: string; suite: string },
  target: string,
  signal?: AbortSignal,
): Promise<void> {
  const options = ['-y', '-t', suite, '--no-install-recommends', '--download-only']
  // Nothing is installed: apt only finds out what belongs to it.
  const place = [`Dir::Cache::archives=${join(target, archives)}`, 'Debug::NoLocking=true']
  const args = [...place.flatMap((setting) => ['-o', setting]), ...options, 'install', name]
  await download(apt, args, target, signal)
}

const archives = '.debs'

async function download(
  apt: AptDirectory,
  args: string[],
  target: string,
  signal?: AbortSignal,
): Promise<void> {
  await mkdir(join(target, archives, 'partial'), { recursive: true })
  const inArchives = ['-c', 'cd "$1" && shift && exec apt-get "$@"', 'sh', join(target, archives)]
  const { status, stderr } = await execute(
    'sh',
    [...inArchives, '-c', configurationOf(apt), '-q', ...args],
    signal,
  )
  if (status !== 0) {
    const reason = stderr.split('\n').findLast((line) => line.startsWith('E:')) ?? lastLine(stderr)
    const packages = args.slice(args.findIndex((arg) => arg === 'download' || arg === 'install') + 1)
    throw new LabError('ERR_LAB_DOWNLOAD', `cannot download ${packages.join(', ')}: ${reason}`)
  }
  await executeOrFail(
    'sh',
    ['-ec', 'for deb in "$1"/.debs/*.deb; do dpkg-deb -x "$deb" "$1"; done; rm -r "$1/.debs"', 'sh', target],
    signal,
  )
}
