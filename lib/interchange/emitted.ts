/** The output of an exporter. */
export interface Emitted {
  text: string
  /** The parts of the guest's configuration that the target cannot express, one line each. */
  inexpressible: string[]
}
