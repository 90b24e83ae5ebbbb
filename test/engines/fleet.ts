/** A fleet of simulated hosts: what a collection must find, and the reports to simulate. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { formatDocument } from '../../lib/documents/write.js'
import { builtInHosts, builtInReport } from '../../lib/hosts/index.js'
import { classOf } from '../../lib/report/digest.js'

export interface FleetHost {
  name: string
  /** File of the report to simulate; each differs from all others. */
  report: string
  class: string
}

/** Writes reports of that many hosts, each with a kernel of its own build. They are of the first `classes` built-in hosts in turn. */
export function writeFleet(folder: string, size: number, classes: number): FleetHost[] {
  mkdirSync(folder, { recursive: true })
  const kinds = builtInHosts().slice(0, classes)
  return Array.from({ length: size }, (_, index) => {
    const name = `node-${String(index + 1).padStart(2, '0')}`
    const known = builtInReport(kinds[index % kinds.length]!)
    const report = { ...known, host: { ...known.host, build: `#${index + 1} SMP` } }
    const file = join(folder, `${name}.json`)
    writeFileSync(file, formatDocument(report))
    return { name, report: file, class: classOf(report) }
  })
}
