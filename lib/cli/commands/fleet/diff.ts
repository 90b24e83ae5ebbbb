import { Command } from 'commander'
import { diffFleets, type FleetDiff } from '../../../fleet/diff.js'
import { type FleetDocument, readFleetDocument } from '../../../fleet/document.js'
import { note, paint, print, printJson } from '../../output.js'
import { table } from '../../view/table.js'
import { count, wrap } from '../../view/text.js'

/** `kvm-arm64 fleet diff`: show what changed in a fleet. */
export function fleetDiffCommand(): Command {
  return new Command('diff')
    .description('show which classes, hosts and moves came and went between two results of `fleet --json`')
    .argument('<old>', 'what `fleet --json` printed then')
    .argument('<new>', 'what it printed now, for the same VMM')
    .option('--json', 'print the differences as JSON (kvm-arm64/fleet-diff.schema.json)')
    .addHelpText(
      'after',
      `
A host that is in another class than before, as after a kernel update, is
listed apart from new hosts. Moves are compared between hosts that are in both.

Exit status: 0 also where they differ.

Examples:
  kvm-arm64 fleet diff monday.json tuesday.json
  kvm-arm64 fleet diff monday.json tuesday.json --json`,
    )
    .action(run)
}

function run(old: string, later: string, { json }: { json?: boolean }): void {
  const [before, now] = [readFleetDocument(old), readFleetDocument(later)]
  const found = diffFleets(before, now, later)
  noteAbsent(old, before)
  noteAbsent(later, now)
  if (json) printJson(found)
  else print(summary(found))
}

function noteAbsent(file: string, { left, faulty }: FleetDocument): void {
  if (left.hostCount > 0) note(`${file} leaves ${count(left.hostCount, 'host')} out: they count as not there`)
  if (faulty > 0) {
    note(`${file} has ${count(faulty, 'report')} that could not be read: those hosts count as not there`)
  }
}

/** Rows shown of a long list. */
const SHOWN = 20

function summary({ classes, hosts, moves }: FleetDiff): string {
  const { appeared, gone } = classes
  if ([appeared, gone, hosts.new, hosts.gone, hosts.changed].every(({ length }) => length === 0)) {
    if (moves.opened.length + moves.closed.length === 0) return 'nothing changed'
  }
  const classRows = (list: typeof appeared) =>
    list.map(({ digest, hostCount, cpu, releases }) => [digest, `${hostCount}`, cpu, some(releases, 2)])
  const moveRows = (list: typeof moves.opened) =>
    list.map(({ from, to }) => [end(from), '→', end(to), `${from.hostCount}`, `${to.hostCount}`])
  const classHead = ['class', 'hosts', 'CPU', 'kernel']
  const moveHead = ['from', '', 'to', 'hosts there', 'hosts here']
  return [
    ...part('Classes that appeared', classHead, classRows(appeared)),
    ...part('Classes that are gone', classHead, classRows(gone)),
    ...part(
      'Hosts that changed class',
      ['was', 'is', 'kernel then', 'kernel now', 'hosts', 'among them'],
      hosts.changed.map(({ from, to, releases, names }) => [
        from,
        to,
        some(releases.before, 2),
        some(releases.now, 2),
        `${names.length}`,
        some(names, 3),
      ]),
    ),
    ...listed('New hosts', hosts.new),
    ...listed(
      hosts.unknown === 0 ? 'Hosts that are gone' : 'Hosts that are gone, or of which no report was read',
      hosts.gone,
    ),
    ...part('Moves that opened', moveHead, moveRows(moves.opened)),
    ...part('Moves that closed', moveHead, moveRows(moves.closed)),
  ]
    .join('\n')
    .trimEnd()
}

function part(title: string, head: readonly string[], rows: readonly (readonly string[])[]): string[] {
  if (rows.length === 0) return []
  const more = rows.length > SHOWN ? [`  and ${rows.length - SHOWN} more: --json shows all`] : []
  return [paint('bold', `${title}: ${rows.length}`), table(head, rows.slice(0, SHOWN)), ...more, '']
}

function listed(title: string, names: readonly string[]): string[] {
  if (names.length === 0) return []
  return [paint('bold', `${title}: ${names.length}`), wrap(some(names, SHOWN), 2, 2), '']
}

function some(all: readonly string[], most: number): string {
  return all.slice(0, most).join(' ') + (all.length > most ? ' …' : '')
}

function end({ before, now }: FleetDiff['moves']['opened'][number]['from']): string {
  return before === now ? now : `${before} as ${now}`
}
