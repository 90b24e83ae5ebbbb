/** Measures the gate for schedulers: the command that looks one move up, beside `node -e 0`, and the library from a loaded fleet. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { analyseFleet } from '../../lib/fleet/analyse.js'
import { readFleet } from '../../lib/fleet/classes.js'
import { type FleetDocument, fleetDocument, readFleetDocument } from '../../lib/fleet/document.js'
import { FleetGate } from '../../lib/fleet/gate.js'
import { builtInHosts, builtInReport } from '../../lib/hosts/index.js'

const LOOK_UPS = 100_000

/** The fleet of the recorded hosts with so many classes and hosts: each class several times, with the moves of the recorded ones. */
function enlarged(small: FleetDocument, times: number, hosts: number): FleetDocument {
  const size = small.classes.length * times
  const of = (index: number): number => index % small.classes.length
  return {
    ...small,
    classes: Array.from({ length: size }, (_, index) => {
      const one = small.classes[of(index)]!
      const names = Array.from(
        { length: Math.round(hosts / size) },
        (__, host) => `rack-${index}-node-${String(host).padStart(4, '0')}.example.org`,
      )
      const digest = `${Math.floor(index / small.classes.length).toString(16)}${one.digest.slice(1)}`
      return { ...one, digest, hostCount: names.length, names }
    }),
    moves: Array.from({ length: size }, (_, from) =>
      Array.from({ length: size }, (__, to) => small.moves[of(from)]![of(to)]!),
    ),
  }
}

/**
 * @param overNode how many times the processor time of `node -e 0` a command takes beyond it
 */
export function benchGate(
  print: (what: string, value: string, bound: string, isWithin: boolean) => void,
  commandFile: string,
  overNode: (command: readonly string[]) => number,
): void {
  const folder = mkdtempSync(join(tmpdir(), 'kvm-arm64-bench-gate-'))
  try {
    const reports = join(folder, 'reports.ndjson')
    const lines = builtInHosts().map((name) => JSON.stringify({ name, report: builtInReport(name) }))
    writeFileSync(reports, lines.join('\n'))
    const fleet = readFleet(reports)
    const small = fleetDocument(fleet, analyseFleet(fleet))
    const [from, to] = small.classes.slice(0, 2).map(({ digest }) => digest)
    // Milliseconds of all the processor time, on a machine on which node -e 0 takes 40 of them.
    for (const [document, milliseconds] of [
      [small, 60],
      [enlarged(small, 8, 100_000), 100],
    ] as const) {
      const file = join(folder, 'fleet.json')
      writeFileSync(file, JSON.stringify(document))
      const bound = milliseconds / 40
      const took = 1 + overNode([commandFile, 'check', '--class', from!, '--class', to!, '--fleet', file])
      const hosts = document.classes.reduce((sum, { names }) => sum + names.length, 0)
      print(
        `check --class in ${document.classes.length} classes, ${hosts} hosts, processor time`,
        `${took.toFixed(2)} × node`,
        `≤ ${bound.toFixed(2)} × node`,
        took <= bound,
      )
    }
    const gate = new FleetGate(readFleetDocument(join(folder, 'fleet.json')))
    for (const [what, end] of [
      ['a class', to!],
      ['a host', 'rack-100-node-0400.example.org'],
    ] as const) {
      const start = process.cpuUsage()
      for (let count = 0; count < LOOK_UPS; count++) gate.move(from!, end)
      const { user, system } = process.cpuUsage(start)
      const microseconds = (user + system) / LOOK_UPS
      print(
        `  look-up of a move to ${what} in it`,
        `${microseconds.toFixed(1)} µs`,
        '≤ 100 µs',
        microseconds <= 100,
      )
    }
  } finally {
    rmSync(folder, { recursive: true })
  }
}
