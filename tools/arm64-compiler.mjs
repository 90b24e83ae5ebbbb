/** The compiler that generates arm64 code: this machine's own, or Debian's cross compiler. */
import { spawnSync } from 'node:child_process'

/** What its tools are called here. */
export function arm64Tools() {
  const prefix = process.arch === 'arm64' && process.platform === 'linux' ? '' : 'aarch64-linux-gnu-'
  return { CC: `${prefix}gcc`, CXX: `${prefix}g++`, strip: `${prefix}strip` }
}

export function hasArm64Compiler() {
  return Object.values(arm64Tools()).every((tool) => spawnSync(tool, ['--version']).status === 0)
}

/** The remedy if it is not installed. */
export function howToInstall() {
  const name = arm64Tools().CXX
  return `install ${name} (Debian's package ${name === 'g++' ? 'g++' : 'g++-aarch64-linux-gnu'})`
}

export function checkArm64Compiler() {
  if (!hasArm64Compiler()) throw new Error(`nothing here compiles for arm64; ${howToInstall()}`)
}
