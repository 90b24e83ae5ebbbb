import { ConsoleError } from '../console-error.js'

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
  /** The guest did something KVM cannot continue from. */
  | 'ERR_MACHINE_GUEST'
  /** What was expected on the console did not come in time. */
  | 'ERR_MACHINE_TIMEOUT'
  /** The machine ended before the console printed what was expected. */
  | 'ERR_MACHINE_ENDED'

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
