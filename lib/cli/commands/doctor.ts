import { accessSync, constants, readFileSync, statSync } from 'node:fs'
import { dirname } from 'node:path'
import { Command, InvalidArgumentError } from 'commander'
import { AddonError, findAddon, kernelBackend, loadAddon } from '../../kernel/index.js'
import { openKvm } from '../../kvm/index.js'
import {
  cachedKernels,
  cacheDirectory,
  hasArm64Addon,
  howToBuildArm64Addon,
  inspectSetup,
  LabError,
  mirrors,
} from '../../lab/index.js'
import { packageRoot } from '../../package-root.js'
import { KVM_API_VERSION } from '../../uapi.js'
import { CommandError, exitStatus, messageOf } from '../exit.js'
import { paint, print, printJson } from '../output.js'
import { table } from '../view/table.js'

/** Something that a user can require of a machine. */
const abilities = ['kvm', 'addon', 'lab'] as const
type Ability = (typeof abilities)[number]

interface Finding {
  /** What depends on it. */
  ability: Ability
  name: string
  isGood: boolean
  /** The finding; if it is not good, with the remedy. */
  found: string
}

interface Flags {
  require?: Ability[]
  json?: boolean
}

/** `kvm-arm64 doctor`: report what this machine can do. */
export function doctorCommand(): Command {
  return new Command('doctor')
    .option(
      '--require <abilities>',
      'exit 3 unless the machine can do these: kvm, addon, lab, separated by commas',
      parseAbilities,
    )
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      `
Abilities:
  kvm     use arm64 KVM of this machine
  addon   load the native addon, through which KVM is used
  lab     boot a real arm64 kernel with KVM under QEMU

In CI, put --require before tests that skip what a machine cannot do.

Exit status: 3 if the machine lacks an ability that --require names.

Examples:
  kvm-arm64 doctor
  kvm-arm64 doctor --require lab && npm test
  kvm-arm64 doctor --json`,
    )
    .action(run)
}

function parseAbilities(list: string): Ability[] {
  return list.split(',').map((name) => {
    const ability = abilities.find((known) => known === name.trim())
    if (ability !== undefined) return ability
    throw new InvalidArgumentError(`Unknown ability "${name}"; known: ${abilities.join(', ')}.`)
  })
}

async function run({ require: required = [], json }: Flags): Promise<void> {
  const findings = [...kvmFindings(), addonFinding(), ...(await labFindings())]
  const can = (ability: Ability) => findings.every((finding) => finding.ability !== ability || finding.isGood)
  if (json) {
    printJson({
      ...Object.fromEntries(abilities.map((ability) => [ability, can(ability)])),
      findings: findings.map(({ ability, name, isGood, found }) => ({ ability, name, ok: isGood, found })),
    })
  } else {
    print(abilities.map((ability) => section(ability, can(ability), findings)).join('\n\n'))
  }
  const lacking = [...new Set(required)].filter((ability) => !can(ability))
  if (lacking.length > 0) {
    throw new CommandError(`this machine lacks: ${lacking.join(', ')}`, exitStatus.machine)
  }
}

const titles: Readonly<Record<Ability, string>> = {
  kvm: 'arm64 KVM of this machine',
  addon: 'Native addon',
  lab: 'Lab',
}

function section(ability: Ability, isAble: boolean, findings: readonly Finding[]): string {
  const rows = findings
    .filter((finding) => finding.ability === ability)
    .map(({ name, isGood, found }) => [isGood ? 'ok' : 'no', name, found])
  const answer = isAble ? paint('green', 'yes') : paint('red', 'no')
  return `${paint('bold', titles[ability])}: ${answer}\n${table(['', '', ''], rows).replace(/^.*\n/, '')}`
}

function kvmFindings(): Finding[] {
  const device = deviceFinding()
  const api = attempt('kvm', 'open', () => {
    openKvm(kernelBackend).close()
    return `version ${KVM_API_VERSION} of the API`
  })
  return [device, api]
}

function findingOf(ability: Ability, name: string, isGood: boolean, found: string): Finding {
  return { ability, name, isGood, found }
}

/** The device file, and who may open it. */
function deviceFinding(): Finding {
  const stats = statSync('/dev/kvm', { throwIfNoEntry: false })
  if (stats === undefined)
    return findingOf(
      'kvm',
      '/dev/kvm',
      false,
      'there is no such file: the kernel has no KVM, or a container hides it',
    )
  try {
    accessSync('/dev/kvm', constants.R_OK | constants.W_OK)
    return findingOf('kvm', '/dev/kvm', true, 'can be read and written')
  } catch {
    const group = groupName(stats.gid)
    return findingOf(
      'kvm',
      '/dev/kvm',
      false,
      `belongs to the group ${group}: usermod -aG ${group} USER, then log in again`,
    )
  }
}

function groupName(gid: number): string {
  const line = readFileSync('/etc/group', 'utf8')
    .split('\n')
    .find((entry) => entry.split(':')[2] === String(gid))
  return line?.split(':')[0] ?? String(gid)
}

function addonFinding(): Finding {
  return attempt('addon', 'file', () => {
    const file = findAddon(packageRoot)
    loadAddon(packageRoot)
    return `${file.includes('/prebuilds/') ? 'prebuilt' : 'built here'}, loads: ${file}`
  })
}

async function labFindings(): Promise<Finding[]> {
  const { missing, command } = await inspectSetup()
  const kernels = await cachedKernels()
  const cached = kernels.map(({ release }) => release).join(' ')
  const mirror = await mirrorFinding()
  return [
    missing.length === 0
      ? findingOf('lab', 'programs', true, 'QEMU and all else is installed')
      : findingOf(
          'lab',
          'programs',
          false,
          `missing: ${missing.join(', ')}; kvm-arm64 lab setup installs them (${command})`,
        ),
    hasArm64Addon()
      ? findingOf('lab', 'arm64 addon', true, 'prebuilt')
      : findingOf('lab', 'arm64 addon', false, `not in this package; ${howToBuildArm64Addon}`),
    cacheFinding(),
    // A cache makes the mirror unnecessary, and the other way round.
    findingOf(
      'lab',
      'kernels',
      kernels.length > 0 || mirror.isGood,
      cached === '' ? 'none cached' : `cached: ${cached}`,
    ),
    { ...mirror, isGood: mirror.isGood || kernels.length > 0 },
  ]
}

function cacheFinding(): Finding {
  const directory = cacheDirectory()
  const isWritable = canWrite(directory)
  const found = isWritable ? directory : `${directory} cannot be written; point XDG_CACHE_HOME elsewhere`
  return findingOf('lab', 'cache', isWritable, found)
}

/** Returns a directory, or its nearest existing ancestor. */
function canWrite(directory: string): boolean {
  try {
    accessSync(directory, constants.W_OK | constants.X_OK)
    return true
  } catch (error) {
    const isMissing = (error as NodeJS.ErrnoException).code === 'ENOENT'
    return isMissing && dirname(directory) !== directory && canWrite(dirname(directory))
  }
}

async function mirrorFinding(): Promise<Finding> {
  try {
    return findingOf('lab', 'mirror', true, (await mirrors()).main)
  } catch (error) {
    if (!(error instanceof LabError)) throw error
    return findingOf('lab', 'mirror', false, error.message)
  }
}

function attempt(ability: Ability, name: string, work: () => string): Finding {
  try {
    return findingOf(ability, name, true, work())
  } catch (error) {
    const isExpected = error instanceof AddonError || (error as { name?: unknown }).name === 'KvmError'
    if (!isExpected) throw error
    return findingOf(ability, name, false, messageOf(error))
  }
}
