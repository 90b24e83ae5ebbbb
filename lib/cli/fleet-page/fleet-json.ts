import type { FleetAnalysis } from '../../fleet/analyse.js'
import type { Fleet } from '../../fleet/classes.js'
import { cpuName } from '../../report/cpu.js'
import { psciVersion } from '../view/summary.js'

/** What `kvm-arm64 fleet --json` prints: classes are told by their place in `classes`, from 0. */
export type FleetJson = ReturnType<typeof fleetJson>

export function fleetJson({ hosts, faulty }: Fleet, analysis: FleetAnalysis) {
  const { vmm, classes, left, moves, obstacles, groups, divides, upgrades, errors } = analysis
  const refused = errors.reduce((sum, { class: one }) => sum + one.hosts, 0)
  return {
    hosts: hosts - refused,
    faulty: faulty + refused,
    vmm,
    classes: classes.map((one) => {
      const report = one.report()
      return {
        digest: one.digest,
        hosts: one.hosts,
        cpu: cpuName(report),
        psci: psciVersion(report),
        releases: [...one.releases],
        first: one.first,
        names: one.names,
      }
    }),
    left,
    moves: moves.flatMap((row, from) =>
      row.flatMap((move, to) => (move === null ? [] : [{ from, to, ...move }])),
    ),
    obstacles,
    groups,
    divides,
    upgrades,
  }
}
