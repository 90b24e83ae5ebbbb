export type LabErrorCode =
  /** The machine's kernel panicked. */
  | 'ERR_LAB_PANIC'
  /** The machine did not come up, or the command did not end, in the time allowed. */
  | 'ERR_LAB_TIMEOUT'
  /** The machine powered off or QEMU died before the command ended. */
  | 'ERR_LAB_STOPPED'
  /** The caller closed the lab, or aborted, while this was under way. */
  | 'ERR_LAB_CLOSED'
  /** QEMU for arm64 is not installed. */
  | 'ERR_LAB_NO_QEMU'
  /** QEMU refused its arguments: an unknown CPU, too much memory. */
  | 'ERR_LAB_QEMU'
  /** No Debian suite offers such a kernel, or `--image` names no file. */
  | 'ERR_LAB_UNKNOWN_KERNEL'
  /** The kernel came up but lacks a driver the lab talks through. */
  | 'ERR_LAB_UNFIT_KERNEL'
  /** Something needed could not be downloaded. */
  | 'ERR_LAB_DOWNLOAD'
  /** The disk that holds the cache is full. */
  | 'ERR_LAB_DISK_FULL'
  /** The directory of the cache cannot be made or written. */
  | 'ERR_LAB_CACHE'
  /** A tool of the machine the lab runs on is missing or failed. */
  | 'ERR_LAB_TOOL'
  /** A path given with `copy` cannot be read. */
  | 'ERR_LAB_COPY'

/** What went wrong in the lab itself, as opposed to in the command it ran. */
export class LabError extends Error {
  override readonly name = 'LabError'
  readonly code: LabErrorCode
  /** The last lines of the kernel's console, where there was a machine. */
  readonly console: string

  constructor(code: LabErrorCode, message: string, options: ErrorOptions & { console?: string } = {}) {
    super(message, options)
    this.code = code
    this.console = options.console ?? ''
  }
}
