import { ConsoleError } from '../console-error.js'
import type { Finding } from '../migration/finding.js'

export type MachineErrorCode =
  /** The file of the kernel or the initrd cannot be read. */
  | 'ERR_MACHINE_FILE'
  /** The kernel cannot be loaded: no arm64 Image, damaged, or compressed in a way this Node.js cannot undo. */
  | 'ERR_MACHINE_KERNEL'
  /** Kernel, device tree and initrd do not fit into the machine's memory. */
  | 'ERR_MACHINE_MEMORY'
  /** A disk cannot be opened, or its size is no multiple of 512 bytes. */
  | 'ERR_MACHINE_DISK'
  /** This host's KVM can make neither a GICv3 nor a GICv2, or not for so many vCPUs. */
  | 'ERR_MACHINE_GIC'
  /** This host's KVM refuses something of the baseline, or it is for vCPUs with other features. */
  | 'ERR_MACHINE_BASELINE'
  /** The guest did something KVM cannot continue from. */
  | 'ERR_MACHINE_GUEST'
  /** What was expected on the console did not come in time. */
  | 'ERR_MACHINE_TIMEOUT'
  /** The machine ended before the console printed what was expected. */
  | 'ERR_MACHINE_ENDED'
  /** The stream of a move broke, is damaged or of another version, or is no such stream; or the other side stalls. */
  | 'ERR_MACHINE_STREAM'
  /** The destination of a move refuses the machine; `MoveRefusedError` has the reasons. */
  | 'ERR_MACHINE_REFUSED'
  /** A stream cannot carry all that the machine has, or the machine is being sent already. */
  | 'ERR_MACHINE_SEND'
  /** The stream broke after the guest was given away: it is not known whether it runs at the destination. */
  | 'ERR_MACHINE_UNCERTAIN'

/**
 * A failure of the machine or of the guest in it. Match on `code`.
 *
 * @example
 * try {
 *   await machine.console.expect(/login: /, { timeout: 10_000 })
 * } catch (error) {
 *   if (error instanceof MachineError && error.code === 'ERR_MACHINE_TIMEOUT') console.error(error.console)
 *   else throw error
 * }
 */
export class MachineError extends ConsoleError<MachineErrorCode> {
  override readonly name = 'MachineError'
}

/** The destination of a move refuses the machine. The guest goes on at the source. */
export class MoveRefusedError extends MachineError {
  /** In words, the gravest first. */
  readonly reasons: readonly string[]
  /** What the verdict found; empty if something else was the reason. */
  readonly findings: readonly Finding[]

  constructor(reasons: readonly string[], findings: readonly Finding[]) {
    const more = reasons.length > 5 ? `; and ${reasons.length - 5} more` : ''
    super(
      'ERR_MACHINE_REFUSED',
      `the destination refuses the machine: ${reasons.slice(0, 5).join('; ')}${more}`,
    )
    this.reasons = reasons
    this.findings = findings
  }
}
