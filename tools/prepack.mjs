/**
 * Runs before npm packs or publishes the package: without the arm64 addon it would be of no use on its target machines, and only a
 * user would notice. If there is a compiler, it builds the addon from these sources; otherwise it takes an existing one, brought
 * from another machine.
 */
import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { hasArm64Compiler, howToInstall } from './arm64-compiler.mjs'
import { checkArm64Addon, prebuiltAddon } from './prebuilt-addon.mjs'

try {
  if (hasArm64Compiler()) {
    const builder = fileURLToPath(new URL('build-addon.mjs', import.meta.url))
    // Programs read the stdout of npm pack --json.
    const { status } = spawnSync(process.execPath, [builder, '--arm64'], { stdio: ['ignore', 2, 2] })
    if (status !== 0) throw new Error('the addon for arm64 was not built (see above)')
  }
  checkArm64Addon(prebuiltAddon)
} catch (error) {
  const otherwise = `${howToInstall()}, or put an addon built elsewhere there`
  console.error(`kvm-arm64: not packed: ${error.message}${hasArm64Compiler() ? '' : `; ${otherwise}`}`)
  process.exitCode = 1
}
