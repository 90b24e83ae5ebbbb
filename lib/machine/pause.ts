/** Where the vCPUs of a machine wait while the guest stands still. */
export class Pause {
  /** vCPUs that have neither ended nor come here. */
  #outside: number
  #holders = 0
  #isCancelled = false
  #reached: Signal | undefined
  #over: Signal | undefined

  constructor(vcpus: number) {
    this.#outside = vcpus
  }

  /** Whether vCPUs must wait here before they run again. */
  get isOn(): boolean {
    return this.#holders > 0 && !this.#isCancelled
  }

  /** Resolves when no vCPU runs any more, or when all pauses end before that. Each call needs an `end`. */
  begin(): Promise<void> {
    this.#holders++
    this.#over ??= new Signal()
    this.#reached ??= new Signal()
    const { promise } = this.#reached
    this.#check()
    return promise
  }

  end(): void {
    if (--this.#holders > 0) return
    this.#over?.resolve()
    this.#over = undefined
    this.#reached?.resolve()
    this.#reached = undefined
  }

  /** Ends every pause: the machine ends. */
  cancel(): void {
    this.#isCancelled = true
    this.#over?.resolve()
  }

  /** A vCPU waits here until all pauses have ended. */
  async wait(): Promise<void> {
    this.#outside--
    this.#check()
    await this.#over?.promise
    this.#outside++
  }

  /** A vCPU has ended. */
  leave(): void {
    this.#outside--
    this.#check()
  }

  #check(): void {
    if (this.#outside > 0) return
    this.#reached?.resolve()
    this.#reached = undefined
  }
}

/** A promise that can be resolved from outside. */
class Signal {
  readonly promise: Promise<void>
  #resolve: (() => void) | undefined

  constructor() {
    this.promise = new Promise((resolve) => (this.#resolve = resolve))
  }

  resolve(): void {
    this.#resolve?.()
  }
}
