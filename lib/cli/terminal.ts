import type { Readable, Writable } from 'node:stream'
import type { GuestConsole } from '../machine/index.js'

/** Ctrl-], as telnet has it. */
const QUIT = 0x1d

/** What `connectTerminal` uses of standard input, a terminal or a pipe. */
export type Input = Readable & { isTTY?: boolean; setRawMode?: (raw: boolean) => unknown }

/**
 * Connects standard input and output with a guest's console. On a terminal every key goes to the guest, Ctrl-C too, but Ctrl-].
 * @param quit called for Ctrl-]
 * @returns a function that ends the connection and gives the terminal back
 */
export function connectTerminal(
  console: GuestConsole,
  { input, output, quit }: { input: Input; output: Writable; quit: () => void },
): () => void {
  const isTerminal = input.isTTY === true
  // A guest can print faster than a pipe is read.
  const deaf = console.listen((bytes) => output.write(bytes) || console.pause())
  const onDrain = () => console.resume()
  output.on('drain', onDrain)
  // A terminal that has gone, or a directory: there is no more input.
  input.on('error', () => undefined)
  const onData = (bytes: Buffer) => {
    const end = isTerminal ? bytes.indexOf(QUIT) : -1
    if (end < 0) console.write(bytes)
    else {
      console.write(bytes.subarray(0, end))
      quit()
    }
  }
  if (isTerminal) input.setRawMode?.(true)
  input.on('data', onData)
  return () => {
    deaf()
    output.off('drain', onDrain)
    input.off('data', onData)
    if (isTerminal) input.setRawMode?.(false)
    // One that is still open would keep the process waiting for input that nobody reads.
    input.destroy()
  }
}
