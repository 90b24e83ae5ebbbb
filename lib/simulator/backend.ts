import type { Backend, Cpus } from '../backend.js'
import { pageSizeOf } from '../report/machine.js'
import type { Report } from '../report/report.js'
import { Host } from './host.js'
import { SimulatedSystem } from './system.js'

/**
 * Simulates KVM on the host of a report. Only the report decides an answer: no kernel version and no host name does.
 *
 * Of guest code it executes only hypercalls, stores and reads of a few registers (`guest.ts`). A vCPU that has nothing to execute waits for an interrupt
 * until it is kicked, times out, or `immediate_exit` keeps it from starting; each of these freezes what the first run freezes.
 *
 * @param name the name of the simulated host in reports made of the simulation
 */
export function simulatorBackend(report: Report, name = report.host.release): Backend {
  const host = new Host(report)
  const { release, build } = report.host
  const pageSize = pageSizeOf(report)
  return {
    name: 'simulator',
    host: { release, build },
    simulates: name,
    ...(report.cpus && { cpus: simulatedCpus(report.cpus) }),
    ...(pageSize !== undefined && { pageSize }),
    open: () => new SimulatedSystem(host),
  }
}

function simulatedCpus({ kinds, probed }: NonNullable<Report['cpus']>): Cpus {
  return {
    kinds: () => structuredClone(kinds),
    pin: () => ({ cpu: Number.parseInt(kinds[probed]?.cpus ?? '0', 10), release: () => {} }),
  }
}
