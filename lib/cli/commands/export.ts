import { existsSync } from 'node:fs'
import { basename } from 'node:path'
import { Command, InvalidArgumentError, Option } from 'commander'
import { type Baseline, baselineFormat, checkBaseline } from '../../fleet/baseline/format.js'
import { type FleetDocument, readFleetDocument } from '../../fleet/document.js'
import { readFleet } from '../../fleet/classes.js'
import { baselineConfiguration } from '../../interchange/baseline.js'
import { guestConfiguration, type GuestConfiguration } from '../../interchange/configuration.js'
import type { Emitted } from '../../interchange/emitted.js'
import { firecrackerTemplate } from '../../interchange/firecracker.js'
import { kubevirtSelectors } from '../../interchange/kubevirt.js'
import { labelNamespace, nfdFeatures, refuseNamespace } from '../../interchange/nfd.js'
import { nfdObjects } from '../../interchange/nfd-objects.js'
import { prometheusMetrics } from '../../interchange/prometheus.js'
import { qemuCpuOption, type QemuVersion, qemuVersions } from '../../interchange/qemu.js'
import { KvmError, openKvm } from '../../kvm/index.js'
import { readJson } from '../../documents/document.js'
import { builtInHosts, simulator } from '../../hosts/index.js'
import type { VcpuFeature } from '../../uapi.js'
import { CommandError, exitStatus } from '../exit.js'
import { reportOf } from '../host.js'
import { checkOutput, note, printJson, refuseTwoDocuments, writeOutput } from '../output.js'
import { parseFeatures } from '../vm.js'
import { noteErrors } from './fleet/summarise.js'

interface Flags {
  to: Target
  output?: string
  features?: VcpuFeature[]
  namespace: string
  expire: number
  fleet?: string[]
  json?: boolean
}

const ofQemus = qemuVersions.map((version) => `qemu@${version}` as const)
const targets = ['firecracker', 'qemu', ...ofQemus, 'nfd', 'nfd-objects', 'kubevirt', 'prometheus'] as const

type Target = (typeof targets)[number]

/** `kvm-arm64 export`: describe a host in the formats of other tools. */
export function exportCommand(): Command {
  return new Command('export')
    .argument(
      '<report...>',
      'reports, or names of `kvm-arm64 hosts`; a baseline for firecracker and qemu; several for kubevirt; a fleet for nfd-objects',
    )
    .addOption(new Option('--to <format>', 'what to write').choices(targets).makeOptionMandatory())
    .option('-o, --output <file>', 'write to a file (- is standard output); --json prints too')
    .option(
      '--features <features>',
      'firecracker, qemu: vCPU features of the guest beside psci-0.2, separated by commas',
      parseFeatures,
    )
    .option(
      '--namespace <name>',
      'nfd, nfd-objects, kubevirt: DNS name in front of labels',
      parseNamespace,
      labelNamespace,
    )
    .option(
      '--expire <hours>',
      'nfd: hours after which labels that were not written again disappear',
      parseHours,
      24,
    )
    .option(
      '--fleet <files...>',
      'nfd, prometheus: add which moves are possible, from files that `fleet --json` printed, one for each VMM',
    )
    .option('--json', 'print JSON: the text, and what it cannot express')
    .addHelpText(
      'after',
      `
Formats:
  firecracker   a custom CPU template: features, PSCI version, services, ID
                registers
  qemu          the option -cpu for the newest known QEMU; for others:
                ${ofQemus.join(', ')}
  nfd           a file for features.d of Kubernetes' Node Feature Discovery
  nfd-objects   a NodeFeature for each host of a fleet and a NodeFeatureGroup
                for each class, for kubectl; reads what \`fleet\` reads
  kubevirt      affinity and selectors in YAML, for the labels of nfd
  prometheus    metrics for the textfile collector of node_exporter

With --fleet, nodes with the same label \`moves-key.VMM\` can exchange VMs both
ways under that VMM; a node with a label \`accepts.VMM.CLASS\` accepts VMs of that
class, which may be unable to go back. Write all nodes' labels again after each
analysis: a key changes if a class joins or leaves its group.

What the format cannot express is reported on stderr.

Examples:
  kvm-arm64 export baseline.json --to firecracker -o template.json
  kvm-arm64 export host.json --to nfd -o features.d/kvm-arm64
  kvm-arm64 export host.json --to nfd --fleet strict.json qemu.json
  kvm-arm64 export all.json --to nfd-objects | kubectl apply -f -
  kvm-arm64 export a.json b.json --to kubevirt
  kvm-arm64 export linux-6.12-max --to qemu --features psci-0.2,pmu-v3,sve`,
    )
    .action((sources: string[], flags: Flags, command: Command) => {
      refuseForeignOptions(flags.to, command)
      run(sources, flags)
    })
}

/** The formats that use each option; all others ignore it. */
const optionsOf: Readonly<Record<string, (to: Target) => boolean>> = {
  features: (to) => to === 'firecracker' || to.startsWith('qemu'),
  namespace: (to) => to === 'nfd' || to === 'nfd-objects' || to === 'kubevirt',
  expire: (to) => to === 'nfd',
  fleet: (to) => to === 'nfd' || to === 'prometheus',
}

function refuseForeignOptions(to: Target, command: Command): void {
  for (const [option, isFor] of Object.entries(optionsOf)) {
    if (command.getOptionValueSource(option) !== 'cli' || isFor(to)) continue
    const others = targets.filter((target) => !target.includes('@') && isFor(target))
    const named = others.join(', ').replace(/, (?!.*, )/, ' and ')
    throw new CommandError(`--${option} applies to --to ${named} only, not to --to ${to}`, exitStatus.usage)
  }
}

function run(sources: string[], flags: Flags): void {
  const [source, ...others] = sources as [string, ...string[]]
  if (others.length > 0 && flags.to !== 'kubevirt' && flags.to !== 'nfd-objects') {
    throw new CommandError(`--to ${flags.to} takes one report, found ${sources.length}`, exitStatus.usage)
  }
  if (flags.to === 'nfd' && flags.output !== undefined && basename(flags.output).startsWith('.')) {
    throw new CommandError(
      `${flags.output}: Node Feature Discovery reads no file whose name starts with a dot`,
      exitStatus.usage,
    )
  }
  refuseTwoDocuments('-o', flags.output, flags.json)
  checkOutput(flags.output)
  const { text, inexpressible } =
    flags.to === 'kubevirt' || flags.to === 'nfd-objects'
      ? ofMany[flags.to](sources, flags)
      : emitters[flags.to](source, flags)
  if (flags.json) {
    if (flags.output !== undefined) writeOutput(flags.output, text)
    printJson({ to: flags.to, text, inexpressible })
    return
  }
  writeOutput(flags.output, text)
  for (const what of inexpressible) note(`not in it: ${what}`)
}

/** The formats that describe several hosts. */
const ofMany: Readonly<
  Record<'kubevirt' | 'nfd-objects', (sources: readonly string[], flags: Flags) => Emitted>
> = {
  kubevirt: (sources, { namespace }) =>
    kubevirtSelectors(
      sources.map((each) => reportOf(each)),
      { namespace },
    ),
  'nfd-objects': (sources, { namespace }) => {
    const fleet = readFleet(sources, { named: true })
    noteErrors(fleet)
    return nfdObjects(fleet, { namespace })
  },
}

type Emitter = (source: string, flags: Flags) => Emitted

const emitters: Readonly<Record<Exclude<Target, keyof typeof ofMany>, Emitter>> = {
  firecracker: (source, flags) => firecrackerTemplate(configurationOf(source, flags)),
  qemu: (source, flags) => qemuCpuOption(configurationOf(source, flags)),
  ...(Object.fromEntries(
    qemuVersions.map((version): [string, Emitter] => [
      `qemu@${version}`,
      (source, flags) => qemuCpuOption(configurationOf(source, flags), version),
    ]),
  ) as Record<`qemu@${QemuVersion}`, Emitter>),
  nfd: (source, { namespace, expire, fleet = [] }) =>
    inFleets(fleet, (fleets) => {
      const expires = new Date(Date.now() + expire * 60 * 60 * 1000)
      return nfdFeatures(reportOf(source), { namespace, expires, fleets })
    }),
  prometheus: (source, { fleet = [] }) =>
    inFleets(fleet, (fleets) => prometheusMetrics(reportOf(source), { fleets })),
}

/** @throws CommandError for a host that is not in a fleet, and for two fleets of one VMM */
function inFleets(files: readonly string[], emit: (fleets: FleetDocument[]) => Emitted): Emitted {
  const fleets = files.map(readFleetDocument)
  const vmms = fleets.map(({ vmm }) => vmm)
  const twice = vmms.find((vmm, index) => vmms.indexOf(vmm) < index)
  if (twice !== undefined) {
    throw new CommandError(`--fleet has two fleets for ${twice}: give one for each VMM`, exitStatus.usage)
  }
  try {
    return emit(fleets)
  } catch (error) {
    if (!(error instanceof RangeError)) throw error
    throw new CommandError(error.message, exitStatus.usage)
  }
}

function configurationOf(source: string, { features }: Flags): GuestConfiguration {
  const baseline = baselineIn(source)
  if (baseline !== undefined) {
    if (features === undefined) return baselineConfiguration(baseline)
    throw new CommandError(
      `${source} is a baseline, whose features are ${baseline.features.join(', ')}: --features is for reports`,
      exitStatus.usage,
    )
  }
  const wanted: readonly VcpuFeature[] = features ?? ['psci-0.2']
  const report = reportOf(source)
  const { unknown = [] } = report.traits.init
  using kvm = openKvm(simulator(report))
  try {
    const configuration = guestConfiguration(kvm, wanted)
    return features === undefined ? { ...configuration, unknownFeatures: unknown } : configuration
  } catch (error) {
    if (!(error instanceof KvmError)) throw error
    const asked = wanted.filter((feature) => unknown.includes(feature))
    if (asked.length > 0) {
      throw new CommandError(
        `${source} does not say whether its host has ${asked.join(', ')}: it comes from a fingerprint`,
        exitStatus.negative,
      )
    }
    throw new CommandError(
      `${source} has no vCPU with the features ${wanted.join(', ')} (${error.code})`,
      exitStatus.negative,
    )
  }
}

/** Returns a file's content, if it is a baseline. */
function baselineIn(source: string): Baseline | undefined {
  if (builtInHosts().some((name) => name === source) || !existsSync(source)) return undefined
  const data = readJson(source, 'report or baseline')
  const { literal } = baselineFormat.schema.entries.format
  return (data as { format?: unknown } | null)?.format === literal ? checkBaseline(data, source) : undefined
}

function parseNamespace(text: string): string {
  try {
    refuseNamespace(text)
  } catch (error) {
    throw new InvalidArgumentError((error as Error).message)
  }
  return text
}

const MOST_HOURS = 24 * 366

function parseHours(text: string): number {
  const hours = Number(text)
  if (/^\d+(\.\d+)?$/.test(text) && hours > 0 && hours <= MOST_HOURS) return hours
  throw new InvalidArgumentError(`It must be a number of hours above 0, up to ${MOST_HOURS} (a year).`)
}
