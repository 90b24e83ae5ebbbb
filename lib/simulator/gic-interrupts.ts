/** The interrupts of a simulated GICv3, as KVM keeps them (`struct vgic_irq`). */

const SGIS = 16
/** Software-generated and private interrupts, which every vCPU has. */
export const PRIVATE_INTERRUPTS = 32

export class Interrupt {
  enabled: boolean
  /** Group 1, which a guest without secure state uses. */
  group = true
  /** Edge-triggered; otherwise it is pending while its line is high. */
  edge: boolean
  /** Pending by itself, whatever its line. */
  latched = false
  line = false
  active = false
  /** 8 bits, of which KVM keeps the upper five. */
  priority = 0
  /** Affinity of the vCPU that a shared one goes to, 24 bits. */
  route = 0
  /** A timer's, which KVM connects to the interrupt of the CPU's own timer. */
  ofTimer = false

  constructor({ enabled, edge }: Pick<Interrupt, 'enabled' | 'edge'>) {
    this.enabled = enabled
    this.edge = edge
  }

  get pending(): boolean {
    return this.latched || (!this.edge && this.line)
  }
}

/** Returns the private interrupts of a vCPU, as they are before a guest or userspace changed them. */
export function privateInterrupts(): readonly Interrupt[] {
  return Array.from({ length: PRIVATE_INTERRUPTS }, (_, intid) => {
    const isSoftware = intid < SGIS
    return new Interrupt({ enabled: isSoftware, edge: isSoftware })
  })
}

/** Returns the first `count` shared interrupts, which KVM makes edge-triggered. */
export function sharedInterrupts(count: number): readonly Interrupt[] {
  return Array.from({ length: count }, () => new Interrupt({ enabled: false, edge: true }))
}
