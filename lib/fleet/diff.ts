/** Compares a fleet with itself at a later time: classes, hosts, and moves that became possible or stopped being so. */
import * as v from 'valibot'
import { text, uint32 } from '../documents/entries.js'
import { FormatError } from '../documents/document.js'
import type { FleetDocument } from './document.js'
import { canMove } from './moves.js'
import { classDigest } from './summary.js'

const diffedClass = v.strictObject({
  digest: classDigest,
  hostCount: uint32,
  /** For readers. */
  cpu: text,
  /** Their `uname -r`: those of most hosts. */
  releases: v.array(text),
})

/** Hosts that were in one class and are in another now, or still in the same. */
const moveEnd = v.strictObject({ before: classDigest, now: classDigest, hostCount: uint32 })

const diffedMove = v.strictObject({ from: moveEnd, to: moveEnd })

/** The entries of a comparison of two fleets. */
export const fleetDiffSchema = v.strictObject({
  format: v.literal('kvm-arm64/fleet-diff'),
  version: v.literal(1),
  /** The rules that judged the moves of both. */
  vmm: text,
  classes: v.strictObject({ appeared: v.array(diffedClass), gone: v.array(diffedClass) }),
  /** Only hosts that have a name. */
  hosts: v.strictObject({
    new: v.array(text),
    gone: v.array(text),
    /** Hosts of the later fleet without a readable report or beyond the classes compared: they may be among `gone`. */
    unknown: uint32,
    /** Hosts of another class than before: another kernel, firmware or CPU. */
    changed: v.array(
      v.strictObject({
        from: classDigest,
        to: classDigest,
        /** `uname -r` of hosts of both classes. */
        releases: v.strictObject({ before: v.array(text), now: v.array(text) }),
        names: v.array(text),
      }),
    ),
  }),
  /** Between hosts that were there before: possible now and not before, and the other way round. */
  moves: v.strictObject({ opened: v.array(diffedMove), closed: v.array(diffedMove) }),
})

export type FleetDiff = v.InferOutput<typeof fleetDiffSchema>

/**
 * Compares two fleets. Moves are compared between hosts that both fleets contain, each by its class at the time, so that a kernel
 * update shows which moves it opened and closed.
 * @param source of the later fleet, for errors
 * @throws FormatError if they were judged for different VMMs
 */
export function diffFleets(before: FleetDocument, now: FleetDocument, source = 'the later fleet'): FleetDiff {
  if (before.vmm !== now.vmm) {
    throw new FormatError(
      source,
      '$.vmm',
      `is judged for ${now.vmm}, and the earlier fleet for ${before.vmm}: make both with the same --vmm`,
    )
  }
  const [wasIn, isIn] = [classesByHost(before), classesByHost(now)]
  const groups = transitions(before, now, wasIn, isIn)
  const [could, can] = [possibleMoves(before), possibleMoves(now)]
  const opened: FleetDiff['moves']['opened'] = []
  const closed: FleetDiff['moves']['closed'] = []
  for (const from of groups) {
    for (const to of groups) {
      const [was, is] = [could(from.before, to.before), can(from.now, to.now)]
      if (was !== is) (is ? opened : closed).push({ from: endOf(from), to: endOf(to) })
    }
  }
  const [old, later] = [byDigest(before), byDigest(now)]
  return {
    format: 'kvm-arm64/fleet-diff',
    version: 1,
    vmm: now.vmm,
    classes: {
      appeared: now.classes.filter(({ digest }) => !old.has(digest)).map(shortClass),
      gone: before.classes.filter(({ digest }) => !later.has(digest)).map(shortClass),
    },
    hosts: {
      new: [...isIn.keys()].filter((name) => !wasIn.has(name)).toSorted(),
      gone: [...wasIn.keys()].filter((name) => !isIn.has(name)).toSorted(),
      unknown: now.faulty + now.left.hostCount,
      changed: groups
        .filter((group) => group.before !== group.now)
        .map(({ before: from, now: to, names }) => ({
          from,
          to,
          releases: { before: old.get(from)!.releases, now: later.get(to)!.releases },
          names,
        })),
    },
    moves: { opened, closed },
  }
}

function byDigest({ classes }: FleetDocument): Map<string, FleetDocument['classes'][number]> {
  return new Map(classes.map((one) => [one.digest, one]))
}

/** The numbers of hosts without a name, by class. */
function unnamed({ classes }: FleetDocument): Map<string, number> {
  return new Map(classes.map(({ digest, hostCount, names }) => [digest, hostCount - names.length]))
}

function shortClass({ digest, hostCount, cpu, releases }: FleetDocument['classes'][number]) {
  return { digest, hostCount, cpu, releases }
}

/** Hosts that were in one class and are in one now. */
interface Transition {
  before: string
  now: string
  names: string[]
  /** Those without a name, if it is one class. */
  others: number
}

function endOf({ before, now, names, others }: Transition): FleetDiff['moves']['opened'][number]['from'] {
  return { before, now, hostCount: names.length + others }
}

function classesByHost({ classes }: FleetDocument): Map<string, string> {
  return new Map(classes.flatMap(({ digest, names }) => names.map((name) => [name, digest] as const)))
}

/** Those of most hosts first. */
function transitions(
  before: FleetDocument,
  now: FleetDocument,
  wasIn: ReadonlyMap<string, string>,
  isIn: ReadonlyMap<string, string>,
): Transition[] {
  const found = new Map<string, Transition>()
  const groupOf = (from: string, to: string): Transition => {
    const key = `${from} ${to}`
    const known = found.get(key)
    if (known !== undefined) return known
    const made: Transition = { before: from, now: to, names: [], others: 0 }
    found.set(key, made)
    return made
  }
  for (const [name, to] of isIn) {
    const from = wasIn.get(name)
    if (from !== undefined) groupOf(from, to).names.push(name)
  }
  const [were, are] = [unnamed(before), unnamed(now)]
  for (const [digest, count] of are) {
    const others = Math.min(count, were.get(digest) ?? 0)
    if (others > 0) groupOf(digest, digest).others = others
  }
  const size = ({ names, others }: Transition) => names.length + others
  const key = ({ before: from, now: to }: Transition) => `${from} ${to}`
  for (const { names } of found.values()) names.sort()
  return [...found.values()].toSorted((a, b) => size(b) - size(a) || (key(a) < key(b) ? -1 : 1))
}

/** Returns whether VMs of one class can move to hosts of another, or to others of their own. */
function possibleMoves(fleet: FleetDocument): (from: string, to: string) => boolean {
  const places = new Map(fleet.classes.map(({ digest }, index) => [digest, index]))
  return (from, to) => {
    const [source, destination] = [places.get(from), places.get(to)]
    // A class that was not compared has no moves.
    if (source === undefined || destination === undefined) return from === to
    return canMove(fleet, source, destination)
  }
}
