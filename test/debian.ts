/** Programs of Debian that tests need, beside those of the lab. */
import { execFileSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { isInstalled } from '../lib/lab/execute.js'
import { installation, installPackages } from '../lib/lab/setup.js'

/** By program, the package it is in. */
const packages = {
  'ansible-playbook': 'ansible-core',
  chromium: 'chromium',
  dtc: 'device-tree-compiler',
  fish: 'fish',
  groff: 'groff-base',
  munged: 'munge',
  prometheus: 'prometheus',
  'prometheus-node-exporter': 'prometheus-node-exporter',
  sbatch: 'slurm-client',
  slurmctld: 'slurmctld',
  slurmd: 'slurmd',
  sshd: 'openssh-server',
  'systemd-analyze': 'systemd',
  xz: 'xz-utils',
  zsh: 'zsh',
} as const

/** By program, the unit that its package would start at once and at each boot. The tests start the daemons themselves. */
const units: Partial<Record<keyof typeof packages, string>> = {
  munged: 'munge',
  prometheus: 'prometheus',
  'prometheus-node-exporter': 'prometheus-node-exporter',
  slurmctld: 'slurmctld',
  slurmd: 'slurmd',
  sshd: 'ssh',
}

export type Program = keyof typeof packages
export const programs = Object.keys(packages) as Program[]

/** Daemons are in a directory that an ordinary user's PATH does not have. */
function isThere(program: Program): boolean {
  return isInstalled(program) || existsSync(`/usr/sbin/${program}`)
}

/**
 * Installs the packages of programs that are missing, through apt, and leaves no daemon running.
 * @throws Error with the command that installs them where this user may not, or where it fails
 */
export async function ensurePrograms(wanted: readonly Program[]): Promise<void> {
  const missing = wanted.filter((program) => !isThere(program))
  if (missing.length === 0) return
  const { command, allowed } = await installation(missing.map((program) => packages[program]))
  if (!allowed) throw new Error(`the tests need ${missing.join(', ')}; install with: ${command}`)
  const status = await installPackages(command)
  if (!missing.every(isThere)) throw new Error(`exited with status ${status}: ${command}`)
  disable(missing.flatMap((program) => units[program] ?? []))
}

/** Ends units where systemd runs them, for now and for the next boot. */
function disable(names: readonly string[]): void {
  if (names.length === 0 || !existsSync('/run/systemd/system')) return
  const command = [...(process.getuid?.() === 0 ? [] : ['sudo', '-n']), 'systemctl', 'disable', '--now']
  execFileSync(command[0]!, [...command.slice(1), ...names], { stdio: ['ignore', 2, 2] })
}
