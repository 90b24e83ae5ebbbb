/**
 * Runs before npm packs or publishes the package: without the arm64 addon it would be of no use on the machines it is for, and nobody
 * would notice before a user does. Where there is a compiler the addon is built from these sources; elsewhere one that is there
 * already, brought from another machine, is taken.
 */
import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { hasArm64Compiler, howToInstall } from './arm64-compiler.mjs'
import { checkArm64Addon, prebuiltAddon } from './prebuilt-addon.mjs'

try {
  if (hasArm64Compiler()) {
    const builder = fileURLToPath(new URL('build-addon.mjs', import.meta.url))
    // npm pack --json prints to stdout what programs read.
    const { status } = spawnSync(process.execPath, [builder, '--arm64'], { stdio: ['ignore', 2, 2] })
    if (status !== 0) throw new Error('the addon for arm64 was not built (see above)')
  }
  checkArm64Addon(prebuiltAddon)
} catch (error) {
  const otherwise = `${howToInstall()}, or put an addon built elsewhere there`
  console.error(`kvm-arm64: not packed: ${error.message}${hasArm64Compiler() ? '' : `; ${otherwise}`}`)
  process.exitCode = 1
}
