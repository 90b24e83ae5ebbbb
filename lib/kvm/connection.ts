/** What connects an event with a VM; `Mmio.doorbell` and `Vm.connectIrq` make it. */
export class Connection implements Disposable {
  #end: (() => void) | null

  constructor(end: () => void) {
    this.#end = end
  }

  /** Ends the connection. May be repeated; it does nothing once the event or the VM is closed. */
  close(): void {
    this.#end?.()
    this.#end = null
  }

  [Symbol.dispose](): void {
    this.close()
  }
}
