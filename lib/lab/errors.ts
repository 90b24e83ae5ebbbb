import { ConsoleError } from '../console-error.js'

export type LabErrorCode =
  /** The machine's kernel panicked. */
  | 'ERR_LAB_PANIC'
  /** The machine did not start, or the command did not end, in the time allowed. */
  | 'ERR_LAB_TIMEOUT'
  /** The machine powered off or QEMU died before the command ended. */
  | 'ERR_LAB_STOPPED'
  /** The caller closed the lab, or aborted, during this operation. */
  | 'ERR_LAB_CLOSED'
  /** QEMU for arm64 is not installed. */
  | 'ERR_LAB_NO_QEMU'
  /** QEMU refused its arguments: too much memory, a GIC it lacks. */
  | 'ERR_LAB_QEMU'
  /** QEMU does not emulate this CPU. */
  | 'ERR_LAB_UNKNOWN_CPU'
  /** No Debian suite offers such a QEMU. */
  | 'ERR_LAB_UNKNOWN_QEMU'
  /** No Debian suite offers such a kernel, or the file of `--image` does not exist. */
  | 'ERR_LAB_UNKNOWN_KERNEL'
  /** The kernel started but lacks a driver that the lab needs to communicate with it. */
  | 'ERR_LAB_UNFIT_KERNEL'
  /** Something needed could not be downloaded. */
  | 'ERR_LAB_DOWNLOAD'
  /** The disk that holds the cache is full. */
  | 'ERR_LAB_DISK_FULL'
  /** The directory of the cache cannot be created or written. */
  | 'ERR_LAB_CACHE'
  /** A tool of the machine that runs the lab is missing or failed. */
  | 'ERR_LAB_TOOL'
  /** A path given with `copy` cannot be read. */
  | 'ERR_LAB_COPY'

/** A failure of the lab itself, as opposed to the command it ran. */
export class LabError extends ConsoleError<LabErrorCode> {
  override readonly name = 'LabError'
}
