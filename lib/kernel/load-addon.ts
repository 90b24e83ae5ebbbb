import { readdirSync } from 'node:fs'
import { createRequire } from 'node:module'
import { fileURLToPath } from 'node:url'

const require = createRequire(import.meta.url)

/** Loaded on first use: simulated hosts work without it. */
function nodeGypBuild(): { resolve: (folder: string) => string } {
  return require('node-gyp-build') as { resolve: (folder: string) => string }
}

/** The parts of `process` that decide which addon fits. */
export interface Machine {
  readonly platform: string
  readonly arch: string
  readonly nodeVersion: string
}

export type AddonErrorCode =
  'ERR_KVM_ADDON_FORBIDDEN' | 'ERR_KVM_ADDON_MISSING' | 'ERR_KVM_UNSUPPORTED_PLATFORM'

/**
 * Thrown when real KVM is requested on a machine where this package cannot use it. `code` gives the reason; the message says what
 * to do.
 */
export class AddonError extends Error {
  override readonly name = 'AddonError'
  readonly code: AddonErrorCode

  constructor(code: AddonErrorCode, message: string, cause?: unknown) {
    super(message, { cause })
    this.code = code
  }
}

/**
 * Loads the native addon of the package whose top folder is `root`: the one built there, or else the prebuilt one for this
 * platform.
 *
 * @throws {AddonError} `ERR_KVM_UNSUPPORTED_PLATFORM` anywhere but on Linux; `ERR_KVM_ADDON_MISSING` where there is no
 * addon for this machine, or there is one and it does not load (the linker's own words are then in the message);
 * `ERR_KVM_ADDON_FORBIDDEN` where Node.js runs without the permission to load addons.
 */
export function loadAddon(root: URL, machine: Machine = thisMachine()): unknown {
  const file = findAddon(root, machine)
  try {
    return require(file)
  } catch (cause) {
    if (cause instanceof Error && 'code' in cause && cause.code === 'ERR_DLOPEN_DISABLED') {
      throw new AddonError(
        'ERR_KVM_ADDON_FORBIDDEN',
        `Node.js may not load the native addon ${file}: under --permission add --allow-addons, and leave out --no-addons; ` +
          `else ${instead}`,
        cause,
      )
    }
    const reason = cause instanceof Error ? cause.message : String(cause)
    throw new AddonError(
      'ERR_KVM_ADDON_MISSING',
      `the native addon ${file} is there but does not load on ${nameOf(machine)}: ${reason}. ` +
        `In a clone, build it again with npm run build:addon; else ${instead}`,
      cause,
    )
  }
}

const instead = 'use the simulator, which needs no addon, or a real kernel in the lab (kvm-arm64 lab run)'

/**
 * Returns the file that {@link loadAddon} loads; it may still fail to load.
 * @throws {AddonError} as `loadAddon` if there is no such file
 */
export function findAddon(root: URL, machine: Machine = thisMachine()): string {
  if (machine.platform !== 'linux') {
    throw new AddonError(
      'ERR_KVM_UNSUPPORTED_PLATFORM',
      `KVM is a part of Linux and this is ${machine.platform}-${machine.arch}: ${instead}`,
    )
  }
  const folder = fileURLToPath(root)
  const { resolve } = nodeGypBuild()
  try {
    return resolve(folder)
  } catch (cause) {
    const prebuilt = prebuilds(root)
    throw new AddonError(
      'ERR_KVM_ADDON_MISSING',
      `there is no native addon for ${nameOf(machine)} in ${folder}: ` +
        `${prebuilt.length === 0 ? 'it has no prebuilt ones' : `it has one for ${prebuilt.join(', ')}`}. ` +
        `In a clone, build one with npm run build:addon; else ${instead}`,
      cause,
    )
  }
}

function nameOf({ platform, arch, nodeVersion }: Machine): string {
  return `${platform}-${arch} (${libc()}, Node.js ${nodeVersion})`
}

function thisMachine(): Machine {
  return { platform: process.platform, arch: process.arch, nodeVersion: process.versions.node }
}

function libc(): string {
  // Only glibc puts its version here; the other C library that Node.js is built for is musl.
  const report = process.report.getReport() as { header?: { glibcVersionRuntime?: string } }
  const version = report.header?.glibcVersionRuntime
  return version === undefined ? 'musl' : `glibc ${version}`
}

function prebuilds(root: URL): string[] {
  try {
    return readdirSync(new URL('prebuilds/', root))
  } catch {
    return []
  }
}
