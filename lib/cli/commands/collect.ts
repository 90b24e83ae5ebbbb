import { chmodSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { Command, Option } from 'commander'
import { makeDirectories } from '../../documents/directory.js'
import { packageRoot } from '../../package-root.js'
import { CommandError, exitStatus } from '../exit.js'
import { cannotWrite, print, writeOutput } from '../output.js'

/** By engine, what to do with the files. Their folder in `lib/cli/collection/` has the engine's name. */
const engines = {
  ansible: 'look at group_vars/all.yml, then: ansible-playbook -i INVENTORY collect.yml',
  kubernetes:
    'build the image of Containerfile, name it in kvm-arm64.yaml; then: kubectl apply -f kvm-arm64.yaml; later: ./collect.sh',
  prometheus:
    'install metrics.sh as /usr/local/lib/kvm-arm64/metrics.sh, the units in /etc/systemd/system; then: systemctl enable --now kvm-arm64-metrics.timer',
  slurm: 'sbatch --nodes=N probe.sbatch; then, when it has ended: ./collect.sh rows reports',
} as const

type Engine = keyof typeof engines

interface Flags {
  for: Engine
  force?: boolean
}

/** `kvm-arm64 collect`: write the files with which an engine collects a fleet. */
export function collectCommand(): Command {
  return new Command('collect')
    .argument('<directory>', 'where to write the files; it must be empty, or not exist yet')
    .addOption(
      new Option('--for <engine>', 'the engine that collects the fleet')
        .choices(Object.keys(engines))
        .makeOptionMandatory(),
    )
    .option('--force', 'write into a directory that is not empty, and replace files of the same names')
    .addHelpText(
      'after',
      `
The files are yours to edit; docs/collection.md explains them. All but those for
Prometheus collect rows first, as \`probe --digest\` prints them, then one report
of each new class, and merge them with \`fleet merge\`.

Engines:
  ansible      a playbook for any inventory: hosts need SSH and Python
  kubernetes   a DaemonSet that probes nodes, and labels and objects for Node
               Feature Discovery
  prometheus   a systemd timer that writes metrics for node_exporter, and rules
  slurm        a job that probes its nodes, and a job array that summarises any
               number of reports on a shared disk

Exit status: 2 if the directory is not empty, or cannot be written.

Examples:
  kvm-arm64 collect --for ansible collect/`,
    )
    .action(run)
}

function run(directory: string, { for: engine, force }: Flags): void {
  const source = new URL(`lib/cli/collection/${engine}/`, packageRoot)
  const files = readdirSync(source, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .toSorted()
  if (force !== true) refuseFiles(directory)
  const { version } = JSON.parse(readFileSync(new URL('package.json', packageRoot), 'utf8')) as {
    version: string
  }
  for (const file of files) {
    const target = join(directory, file.slice(new URL(source).pathname.length))
    const text = readFileSync(file, 'utf8').replaceAll('@VERSION@', version)
    try {
      makeDirectories(dirname(target))
    } catch (error) {
      throw cannotWrite(target, error)
    }
    writeOutput(target, text)
    if (text.startsWith('#!')) chmodSync(target, 0o755)
  }
  print(`next, in ${directory}: ${engines[engine]}`)
}

/** @throws CommandError if there is anything in the directory, or it is none */
function refuseFiles(directory: string): void {
  let found: string[]
  try {
    found = readdirSync(directory)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return
    throw cannotWrite(directory, error)
  }
  if (found.length === 0) return
  throw new CommandError(
    `${directory} is not empty: name another directory, or replace files in it with --force`,
    exitStatus.usage,
  )
}
