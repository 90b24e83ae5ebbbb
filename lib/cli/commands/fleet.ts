import { Command } from 'commander'
import { analyseFleet, type AnalyseOptions } from '../../fleet/analyse.js'
import { electBaseline } from '../../fleet/baseline/elect.js'
import { type Fleet, type HostClass, readFleet } from '../../fleet/classes.js'
import { printableJson } from '../../documents/printable.js'
import { isObstacle } from '../../migration/obstacle.js'
import type { VmmRules } from '../../migration/vmm/rules.js'
import type { VcpuFeature } from '../../uapi.js'
import { CommandError, exitStatus } from '../exit.js'
import { type FleetDocument, fleetDocument } from '../../fleet/document.js'
import { MAX_COMPARED } from '../../fleet/compared.js'
import type { PredictedMoves } from '../../fleet/known-moves.js'
import { boundClasses, canMove, predictionOf } from '../../fleet/moves.js'
import { FEW_MOVES, predictMoves } from '../../fleet/predict-moves.js'
import { predictionDirectory } from '../../fleet/prediction-cache.js'
import { fleetPage, type JudgedFleet } from '../fleet-page/fleet-page.js'
import { reportsOf } from '../host.js'
import { interruptible } from '../interruptible.js'
import {
  cannotWrite,
  checkOutput,
  isStandardOutput,
  makeDirectory,
  note,
  paint,
  print,
  refuseTwoDocuments,
  withProgress,
  withProgressOf,
  writeOutput,
} from '../output.js'
import { classOrigins, classPsci, divideSubject, isFromKernels } from '../view/fleet.js'
import { grid, table } from '../view/table.js'
import { count, wrap } from '../view/text.js'
import { parseFeatures, vmmsOption } from '../vm.js'
import { fleetDiffCommand } from './fleet/diff.js'
import { mergeCommand, missingCommand, noteErrors, summariseCommand } from './fleet/summarise.js'

interface Flags {
  vmm: VmmRules[]
  features?: VcpuFeature[]
  whatIf?: string
  html?: string
  parquet?: string
  json?: boolean
  cache: boolean
}

/** `kvm-arm64 fleet`: show which hosts are alike, and which moves are possible. */
export function fleetCommand(): Command {
  return (
    new Command('fleet')
      // Options after the name of a subcommand are its own.
      .enablePositionalOptions()
      .addCommand(summariseCommand())
      .addCommand(mergeCommand())
      .addCommand(missingCommand())
      .addCommand(fleetDiffCommand())
      .argument(
        '<reports...>',
        'reports, files with one report per line, directories of report files (*.json), summaries, or - for standard input',
      )
      .addOption(vmmsOption('the VMMs that make the VMs and move them'))
      .option(
        '--features <features>',
        'vCPU features of the VMs on both sides beside psci-0.2, separated by commas, or none; without it, those the VMM uses on each host',
        parseFeatures,
      )
      .option(
        '--what-if <host>',
        'show which moves another kernel would open or close: a report, a name of `kvm-arm64 hosts`, or the beginning of several such names (linux-6.18)',
      )
      .option(
        '--html <file>',
        'write a page with the matrix of moves and the reasons, as it is and with the baseline of the fleet elected',
      )
      .option(
        '--parquet <directory>',
        'write tables for queries as Parquet files: hosts, classes, registers, moves and obstacles',
      )
      .option('--json', 'print the fleet as JSON (kvm-arm64/fleet.schema.json)')
      .option('--no-cache', 'predict every move anew, and keep nothing for later runs')
      .addHelpText(
        'after',
        `
A line is a report as \`probe --json | jq -c .\` prints it, or
{"name": "node-17", "report": …} to name the host, or a row of \`probe
--digest\`. Of a host that is there several times, the newest report counts. To
read a file or directory named like a command, write ./merge. Equal hosts form
one class, which is parsed once. fleet predicts every move: it restores a fresh
VM of one class on a simulation of the other. If there are more than
${MAX_COMPARED} classes, it compares those with most hosts.

Predictions between many classes take minutes: threads make them, and later runs
reuse them from $XDG_CACHE_HOME/kvm-arm64/predictions (~/.cache), at most 256
MiB. After Ctrl-C, the same command continues where it stopped.

Reports that cannot be read or simulated are listed on stderr with their file or
line; the others are analysed all the same.

Exit status: 2 if any report could not be read or simulated.

Examples:
  kvm-arm64 fleet reports/ --html fleet.html
  kvm-arm64 fleet reports/ --html fleet.html --vmm qemu,firecracker
  kvm-arm64 fleet reports/ --parquet tables --vmm all
  for host in $(cat hosts); do
    ssh $host kvm-arm64 probe --backend kernel --json |
      jq -c --arg name $host '{name: $name, report: .}'
  done | kvm-arm64 fleet -
  kvm-arm64 fleet reports.ndjson --what-if linux-6.18`,
      )
      .action(run)
  )
}

async function run(
  sources: readonly string[],
  { vmm, features, whatIf, html, parquet, json, cache }: Flags,
): Promise<void> {
  refuseTwoDocuments('--html', html, json)
  if (json && vmm.length > 1) {
    throw new CommandError('--json prints the fleet under one VMM: choose one with --vmm', exitStatus.usage)
  }
  checkOutput(html)
  if (parquet !== undefined) makeDirectory(parquet)
  const upgrades = whatIf === undefined ? [] : reportsOf(whatIf)
  const fleet = withProgress(`Reading ${sources.join(' ')}`, () => readFleet(sources))
  noteErrors(fleet)
  if (fleet.faults.length > 0 && fleet.faulty === 0) {
    note(`${count(fleet.faults.length, 'report')} could not be read when the summary was made`)
    process.exitCode = exitStatus.usage
  }
  if (fleet.hostCount === 0) return
  const judged: JudgedFleet[] = []
  for (const rules of vmm) {
    const options = { rules, ...(features && { features }) }
    const asIs = await documentOf(fleet, { ...options, whatIf: upgrades }, cache)
    if (asIs === undefined) continue
    if (upgrades.length > 0 && asIs.upgrades.length === 0) {
      note(`no class of this fleet has the CPU of ${whatIf} and another kernel: there is nothing to compare`)
    }
    const elected = html === undefined ? { election: '' } : await electedFleet(fleet, asIs, options, cache)
    judged.push({ asIs, ...elected })
  }
  if (judged.length === 0) return
  const documents = judged.map(({ asIs }) => asIs)
  if (html !== undefined) {
    writeOutput(html, fleetPage(judged, `Moves between ${count(documents[0]!.hostCount, 'host')}`))
  }
  if (parquet !== undefined) await writeTables(parquet, fleet, documents)
  if (json) process.stdout.write(`${printableJson(JSON.stringify(documents[0]))}\n`)
  else if (!isStandardOutput(html)) print(documents.map(summary).join('\n\n'))
}

/** Only here is the writer of Parquet files loaded. */
async function writeTables(
  directory: string,
  fleet: Fleet,
  documents: readonly FleetDocument[],
): Promise<void> {
  const { writeFleetTables } = await import('../../interchange/fleet-tables.js')
  try {
    for (const file of writeFleetTables(directory, fleet, documents)) note(`wrote ${file}`)
  } catch (error) {
    throw (error as NodeJS.ErrnoException).syscall === undefined ? error : cannotWrite(directory, error)
  }
}

/** Analyses a fleet and lists the classes that cannot be simulated; returns undefined if that is all of them. */
async function documentOf(
  fleet: Fleet,
  options: AnalyseOptions,
  cache: boolean,
): Promise<FleetDocument | undefined> {
  const under = `${options.rules!.name}${options.elect === undefined ? '' : ', with the baseline'}`
  const predicted = await predictedFor(fleet, options, cache, under)
  const analysis = withProgress(`Comparing ${fleet.classes.length} classes (${under})`, (progress) =>
    analyseFleet(fleet, { ...options, predicted, progress }),
  )
  for (const { class: one, error } of analysis.errors) note(`${error.message}${alsoOn(one)}`)
  if (analysis.errors.length > 0) process.exitCode = exitStatus.usage
  return analysis.classes.length === 0 ? undefined : fleetDocument(fleet, analysis)
}

/** Predicts the moves of a fleet; when interrupted, it says how far it got. */
async function predictedFor(
  fleet: Fleet,
  { whatIf: _afterwards, ...options }: AnalyseOptions,
  cache: boolean,
  under: string,
): Promise<PredictedMoves> {
  let [predicted, wanted] = [0, 0]
  const work = (signal: AbortSignal) =>
    withProgressOf(`Predicting moves (${under})`, (step) =>
      predictMoves(fleet, {
        ...options,
        ...(cache && { cache: predictionDirectory() }),
        signal,
        progress(done, of) {
          ;[predicted, wanted] = [done, of]
          step(done, of)
        },
      }),
    )
  return interruptible(work, () => {
    if (cache && wanted > FEW_MOVES)
      note(`interrupted: ${predicted} of ${wanted} predictions are made; the next run continues`)
  })
}

/** Analyses a fleet with the baseline of its classes elected on every VM. */
async function electedFleet(
  fleet: Fleet,
  asIs: FleetDocument,
  { rules, features }: { rules: VmmRules; features?: VcpuFeature[] },
  cache: boolean,
): Promise<Omit<JudgedFleet, 'asIs'>> {
  const compared = new Set(asIs.classes.map(({ digest }) => digest))
  const classes = fleet.classes.filter(({ digest }) => compared.has(digest))
  try {
    const hosts = classes.map((one) => ({ name: one.digest, report: one.report() }))
    const elect = electBaseline(rules, hosts, features)
    const how = { rules, ...(features && { features }), elect }
    const elected = await documentOf({ ...fleet, classes }, how, cache)
    return { ...(elected && { elected }), election: electionText(rules) }
  } catch (error) {
    if (!(error instanceof RangeError)) throw error
    return { election: `no baseline: ${error.message}` }
  }
}

function electionText({ name, pins }: VmmRules): string {
  switch (pins) {
    case 'write':
      return 'kvm-arm64 baseline REPORTS -o fleet.json, then kvm-arm64 apply, or write its registers before the first run'
    case 'template':
      return 'kvm-arm64 baseline REPORTS -o fleet.json, then kvm-arm64 export fleet.json --to firecracker'
    default:
      return `kvm-arm64 baseline REPORTS --vmm ${name}, as far as ${name} has options for it: features, PSCI, vector lengths`
  }
}

/** Names the hosts that a message about a class concerns. */
function alsoOn({ hostCount, names: [name], hasReport }: HostClass): string {
  if (!hasReport) return ''
  const others = hostCount > 1 ? [`and ${count(hostCount - 1, 'host')} like it`] : []
  const hostNames = [...(name === undefined ? [] : [name]), ...others].join(' ')
  return hostNames === '' ? '' : `: ${hostNames}`
}

const MATRIX = 40
/** Groups and divides. */
const LISTED = 10

function summary(document: FleetDocument): string {
  const { hostCount, classes, left, obstacles, groups, divides, upgrades, vmm } = document
  const mark = (from: number, to: number): string => {
    if (from === to) return '·'
    const prediction = predictionOf(document, from, to)
    const doubt = prediction.unknown === undefined ? '' : '?'
    if (!prediction.possible) {
      const stopping = prediction.obstacles.filter((index) => isObstacle(obstacles[index]!))
      return `✗${stopping.length}${doubt}`
    }
    return `${prediction.obstacles.length === 0 ? '✓' : '≈'}${doubt}`
  }
  const areFree = (from: number, to: number): boolean =>
    canMove(document, from, to) && canMove(document, to, from)
  const bound = boundClasses(document)
  const lonely = [...classes.keys()].filter(
    (one) =>
      bound.has(one) ||
      (classes[one]!.hostCount === 1 &&
        ![...classes.keys()].some((other) => other !== one && areFree(one, other))),
  )
  const shown = classes.slice(0, MATRIX)
  const all = left.classes + classes.length
  return [
    paint('bold', `${count(hostCount, 'host')} in ${all} ${all === 1 ? 'class' : 'classes'}`),
    table(
      ['', 'class', 'hosts', 'CPU', 'kernel', 'PSCI', 'answered by', 'for example'],
      shown.map((one, index) => [
        `${index + 1}`,
        one.digest,
        `${one.hostCount}`,
        one.cpu,
        one.releases.slice(0, 2).join(' ') + (one.releases.length > 2 ? ' …' : ''),
        classPsci(one),
        isFromKernels(one) ? '' : classOrigins(one),
        one.first,
      ]),
    ),
    ...(shown.length < all
      ? [`  and ${all - shown.length} more: --json and --html show all that were compared`]
      : []),
    '',
    paint('bold', `Who can move where, rows to columns (${vmm})`),
    grid(
      ['', ...shown.map((_, to) => `${to + 1}`)],
      shown.map((_, from) => [`${from + 1}`].concat(shown.map((__, to) => mark(from, to)))),
    ),
    `  ✓ moves   ≈ moves, its guest sees a change   ✗3 stopped by 3 obstacles${
      document.predictions.some(({ unknown }) => unknown !== undefined)
        ? '   ? a report does not say everything'
        : ''
    }`,
    '',
    paint('bold', 'Groups with free movement'),
    ...groups
      .slice(0, LISTED)
      .map((group) => wrap(`${count(group.hostCount, 'host')}: ${classNumbers(group.classes)}`, 2, 4)),
    ...andMore(groups.length - LISTED),
    ...(lonely.length === 0 ? [] : [wrap(`alone: ${classNumbers(lonely)}`, 2, 4)]),
    '',
    paint('bold', 'Kept apart by one register'),
    ...(divides.length === 0 ? ['  none'] : []),
    ...divides.slice(0, LISTED).map((divide) =>
      wrap(
        `${divideSubject(divide)}: ${divide.pairs
          .slice(0, 8)
          .map(([a, b]) => `${a + 1}-${b + 1}`)
          .join(' ')}${divide.pairs.length > 8 ? ' …' : ''}`,
        2,
        4,
      ),
    ),
    ...andMore(divides.length - LISTED),
    ...(upgrades.length === 0
      ? []
      : [
          '',
          paint('bold', 'What if'),
          ...upgrades.map((upgrade) =>
            wrap(
              `class ${upgrade.class + 1} as ${upgrade.upgrade}: opens ${listed(upgrade.opens)}; closes ${listed(upgrade.closes)}`,
              2,
              4,
            ),
          ),
        ]),
  ].join('\n')
}

function andMore(others: number): string[] {
  return others > 0 ? [`  and ${others} more: --json and --html show them`] : []
}

function classNumbers(indices: readonly number[]): string {
  return indices.map((index) => index + 1).join(' ')
}

function listed(moves: FleetDocument['upgrades'][number]['opens']): string {
  return moves.map(({ direction, class: other }) => `${direction} ${other + 1}`).join(', ') || 'nothing'
}
