/** What an exporter made. */
export interface Emitted {
  text: string
  /** What the guest's configuration says and the target has no words for, each in one line. */
  inexpressible: string[]
}
