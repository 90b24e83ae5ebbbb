import type { Backend } from '../backend.js'
import type { Report } from '../report/report.js'
import { Host } from './host.js'
import { SimulatedSystem } from './system.js'

/**
 * KVM as the host of a report answers. Nothing but the report decides an answer: no kernel's version, no host's name.
 *
 * Of guest code only hypercalls and stores are executed (`guest.ts`). A vCPU that has nothing to execute waits for an interrupt
 * until it is kicked, times out, or is told by `immediate_exit` not to start; all of them freeze what the first run freezes.
 *
 * @param name what a report made of the simulation says was simulated
 */
export function simulatorBackend(report: Report, name = report.host.release): Backend {
  const host = new Host(report)
  const { release, build } = report.host
  return {
    name: 'simulator',
    host: { release, build },
    simulates: name,
    open: () => new SimulatedSystem(host),
  }
}
