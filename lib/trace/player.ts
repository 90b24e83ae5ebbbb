import type { SystemFd } from '../backend.js'
import { Handles } from './handles.js'
import { type Call, operations } from './operations/index.js'
import type { Outcome } from './outcome.js'

/** Makes calls on a backend, with handles numbered as a trace numbers them. A call on a number that has no handle answers `EBADF`. */
export class Player {
  readonly #handles: Handles

  constructor(kvm: SystemFd) {
    this.#handles = new Handles(kvm)
  }

  /**
   * Makes one call. A run without `immediate_exit` is interrupted after a millisecond, and a guest's call once the guest is stopped.
   * @throws what the backend throws where it cannot answer at all
   */
  perform(call: Call): Outcome {
    return operations[call.op].perform(this.#handles, call)
  }

  /** Closes every handle but the system's. */
  reset(): void {
    this.#handles.reset()
  }
}
