import type { SystemFd } from '../backend.js'
import { Handles } from './handles.js'
import { type Call, operations } from './operations/index.js'
import type { Outcome } from './outcome.js'

/** Makes calls on a backend, with handles numbered as a trace numbers them. A call on a number without a handle returns `EBADF`. */
export class Player {
  readonly #handles: Handles

  constructor(kvm: SystemFd) {
    this.#handles = new Handles(kvm)
  }

  /**
   * Makes one call. Interrupts a run without `immediate_exit` after a millisecond, and a guest's call once the guest is stopped.
   * @throws what the backend throws if it has no answer at all
   */
  perform(call: Call): Outcome {
    return operations[call.op].perform(this.#handles, call)
  }

  /** Closes every handle except the system's. */
  reset(): void {
    this.#handles.reset()
  }
}
