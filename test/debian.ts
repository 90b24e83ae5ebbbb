/** Programs of Debian that tests need, beside those of the lab. */
import { isInstalled } from '../lib/lab/execute.js'
import { installation, installPackages } from '../lib/lab/setup.js'

/** By program, the package it is in. */
const packages = {
  'ansible-playbook': 'ansible-core',
  chromium: 'chromium',
  dtc: 'device-tree-compiler',
  fish: 'fish',
  groff: 'groff-base',
  sshd: 'openssh-server',
  xz: 'xz-utils',
  zsh: 'zsh',
} as const

export type Program = keyof typeof packages
export const programs = Object.keys(packages) as Program[]

/**
 * Installs the packages of programs that are missing, through apt.
 * @throws Error with the command that installs them where this user may not, or where it fails
 */
export async function ensurePrograms(wanted: readonly Program[]): Promise<void> {
  const missing = wanted.filter((program) => !isInstalled(program))
  if (missing.length === 0) return
  const { command, allowed } = await installation(missing.map((program) => packages[program]))
  if (!allowed) throw new Error(`the tests need ${missing.join(', ')}; install with: ${command}`)
  const status = await installPackages(command)
  if (!missing.every(isInstalled)) throw new Error(`exited with status ${status}: ${command}`)
}
