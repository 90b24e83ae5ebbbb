/** The meaning of the command's exit status; `lab run` passes on the status of the command it runs. */
export const exitStatus = {
  done: 0,
  /** The request was valid, and the answer is no. */
  negative: 1,
  /** Wrong arguments, or a file that cannot be read, understood or written. */
  usage: 2,
  /** This machine lacks a requirement: no arm64 KVM, no permission, no addon. */
  machine: 3,
  /** A fault in this program (`EX_SOFTWARE` of `sysexits.h`). */
  fault: 70,
} as const

/** Ends the command with a message and a status. */
export class CommandError extends Error {
  override readonly name = 'CommandError'
  readonly status: number

  constructor(message: string, status: number) {
    super(message)
    this.status = status
  }
}

/**
 * Returns the message of an error, with the command-line equivalent in place of a library call.
 * @param hasSimulate whether the command has the option `--simulate`; a command without it uses the word `this` for this machine's
 * KVM
 */
export function messageOf(error: unknown, hasSimulate = true): string {
  const { message } = error instanceof Error ? error : new Error(String(error))
  return message
    .replace(/openKvm\(simulator\((?:'([\w.-]+)'|name)\)\)/, (_, host: string | undefined) =>
      hasSimulate ? `--simulate ${host ?? 'NAME'}` : `${host ?? 'by its name'} or a report instead of "this"`,
    )
    .replace('bootLab() of kvm-arm64/lab', 'kvm-arm64 lab run')
}

/** Returns the exit status for an error from any part of the library. */
export function statusOf(error: unknown): number {
  if (error instanceof CommandError) return error.status
  const { name, code } = error as { name?: unknown; code?: unknown }
  if (code === 'ERR_KVM_FORMAT' || code === 'ERR_KVM_UNKNOWN_REGISTER') return exitStatus.usage
  if (code === 'ERR_LAB_UNKNOWN_KERNEL') return exitStatus.usage
  if (name === 'MachineError') return machineStatus(code)
  if (name === 'KvmError') return isAnswer(code) ? exitStatus.negative : exitStatus.machine
  if (name === 'AddonError' || name === 'LabError') return exitStatus.machine
  if (name === 'SimulatorError') return exitStatus.usage
  return exitStatus.fault
}

function machineStatus(code: unknown): number {
  if (code === 'ERR_MACHINE_GUEST') return exitStatus.negative
  return code === 'ERR_MACHINE_GIC' ? exitStatus.machine : exitStatus.usage
}

/** Whether KVM, real or simulated, received the call and refused it; otherwise it is missing, or lacks memory or handles. */
function isAnswer(code: unknown): boolean {
  if (typeof code !== 'string' || code.startsWith('ERR_')) return false
  return !['ENOMEM', 'EMFILE', 'ENFILE', 'EIO'].includes(code)
}
