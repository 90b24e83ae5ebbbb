import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { packageRoot } from '../package-root.js'
import { execute, isInstalled } from './execute.js'
import { ensureKernel } from './kernels.js'
import { ensureRootImage } from './root-image.js'

type Need = { package: string } & ({ program: string } | { file: string })

/** What the lab needs on the machine that runs it, besides Node, npm and what every Debian has: the file, and its package. */
const needs: readonly Need[] = [
  { program: 'qemu-system-aarch64', package: 'qemu-system-arm' },
  { program: 'setpriv', package: 'util-linux' },
  { file: '/usr/share/keyrings/debian-archive-keyring', package: 'debian-archive-keyring' },
]

/** What a clone needs in addition: it contains no addon for the machine inside, and builds it. */
const needsOfClone: readonly Need[] = [
  { program: 'make', package: 'make' },
  { program: 'python3', package: 'python3' },
  { program: 'g++', package: 'g++' },
  ...(process.arch === 'arm64'
    ? []
    : [{ program: 'aarch64-linux-gnu-g++', package: 'g++-aarch64-linux-gnu' }]),
]

interface Setup {
  /** Packages this machine lacks. */
  missing: string[]
  /** The command that installs them, for a user who may; absent if nothing is missing. */
  command?: string
  /** Whether this process may run it: as root, or with sudo without a password. */
  allowed: boolean
}

/** Finds out what is missing and who may install it. */
export async function inspectSetup(): Promise<Setup> {
  const isClone = existsSync(new URL('binding.gyp', packageRoot))
  const missing = [...needs, ...(isClone ? needsOfClone : [])]
    .filter((need) => !isPresent(need))
    .map((need) => need.package)
  return missing.length === 0 ? { missing, allowed: true } : { missing, ...(await installation(missing)) }
}

/** Returns the command that installs packages, and whether this process may run it. */
export async function installation(
  packages: readonly string[],
): Promise<{ command: string; allowed: boolean }> {
  const installing = installCommand(packages)
  if (process.getuid?.() === 0) return { command: installing, allowed: true }
  const sudo = await execute('sudo', ['-n', 'true']).catch(() => ({ status: -1 }))
  return { command: `sudo sh -c '${installing}'`, allowed: sudo.status === 0 }
}

/** Runs the command of {@link inspectSetup}; its output goes to our stderr. Resolves with its exit status. */
export function installPackages(command: string): Promise<number> {
  return new Promise((resolve, reject) => {
    const child = spawn('sh', ['-c', command], { stdio: ['ignore', 2, 2] })
    child.on('error', reject).on('close', (status) => resolve(status ?? -1))
  })
}

/**
 * Puts kernels, and everything needed to boot them, into the cache.
 *
 * @throws LabError `ERR_LAB_UNKNOWN_KERNEL`, `ERR_LAB_DOWNLOAD`, `ERR_LAB_DISK_FULL`
 */
export async function fetchKernels(
  kernels: readonly string[],
  options: { signal?: AbortSignal; progress?: (message: string) => void } = {},
): Promise<void> {
  for (const kernel of kernels) {
    const { modules } = await ensureKernel(kernel, options)
    await ensureRootImage(modules, options)
  }
}

function installCommand(packages: readonly string[]): string {
  return `apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends ${packages.join(' ')}`
}

function isPresent(need: Need): boolean {
  if ('program' in need) return isInstalled(need.program)
  return ['.gpg', '.pgp'].some((end) => existsSync(need.file + end))
}
