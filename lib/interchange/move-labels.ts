/** What labels of a node say about moves, from a fleet that was analysed for a VMM. */
import { FleetGate, type GateDocument } from '../fleet/gate.js'
import { moveKeys } from '../fleet/move-keys.js'

export interface MoveLabels {
  /** The VMM as a part of a label's name: `qemu-11.1`. */
  vmm: string
  /** Nodes with the same key can exchange VMs both ways; undefined if the class has none. See `moveKeys`. */
  key: string | undefined
  /** The classes from which a VM can come, whether or not it could go back. */
  accepts: readonly string[]
  /** What these labels leave out. */
  inexpressible: string[]
}

/**
 * Returns what labels say about a host of this class.
 * @throws RangeError for a class that the fleet does not have or did not compare
 */
export function moveLabels(digest: string, document: GateDocument): MoveLabels {
  const gate = new FleetGate(document)
  const accepts = gate.sources(digest)
  const doubtful = document.classes.filter((one) => {
    const { possible, unknown } = gate.move(one.digest, digest)
    return possible && unknown.length > 0
  })
  const key = moveKeys(document).get(digest)
  return {
    vmm: gate.vmm.replace('@', '-'),
    key,
    accepts,
    inexpressible: [
      ...(key === undefined
        ? [
            `a moves key under ${gate.vmm}: VMs of this class cannot move, or that depends on what no report records`,
          ]
        : []),
      ...(doubtful.length > 0
        ? [
            `whether VMs of ${doubtful.map((one) => one.digest).join(', ')} can come under ${gate.vmm}: it depends on what no report records`,
          ]
        : []),
    ],
  }
}
