/** Reads files, pipes and standard input to their end, without blocking if nothing ever comes. */
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs'

export interface Input {
  /** Reads what is available, at least one byte, to a place in the buffer. Returns the number of bytes, 0 at the end. */
  read(buffer: Buffer, offset: number): number
  close(): void
}

/** Time for a process that has yet to open the other end of a FIFO. */
const PATIENCE_MS = 2000

/**
 * Opens a file for reading. A FIFO that no process opens for writing within two seconds counts as empty.
 * @throws the error of `node:fs`
 */
export function openInput(file: string): Input {
  // Without O_NONBLOCK a FIFO would not even open before a process writes to it.
  const descriptor = openSync(file, constants.O_RDONLY | constants.O_NONBLOCK)
  let deadline = fstatSync(descriptor).isFIFO() ? performance.now() + PATIENCE_MS : 0
  return {
    read: (buffer, offset) => {
      for (;;) {
        const count = readSome(descriptor, buffer, offset)
        if (count > 0) deadline = 0
        if (count > 0 || performance.now() >= deadline) return count
        pause()
      }
    },
    close: () => closeSync(descriptor),
  }
}

export const standardInput: Input = {
  read: (buffer, offset) => readSome(0, buffer, offset),
  close: () => undefined,
}

/** Also works for a non-blocking pipe, whichever process made it non-blocking. */
function readSome(descriptor: number, buffer: Buffer, offset: number): number {
  for (;;) {
    try {
      return readSync(descriptor, buffer, offset, buffer.length - offset, null)
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException
      if (code === 'EOF') return 0
      if (code !== 'EAGAIN') throw error
      pause()
    }
  }
}

/**
 * Repeats an action that fails with an error of this code, for two seconds.
 * @throws the last error
 */
export function patiently<T>(code: string, work: () => T): T {
  const deadline = performance.now() + PATIENCE_MS
  for (;;) {
    try {
      return work()
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== code || performance.now() >= deadline) throw error
      pause()
    }
  }
}

function pause(): void {
  Atomics.wait(never, 0, 0, 1)
}

const never = new Int32Array(new SharedArrayBuffer(4))
