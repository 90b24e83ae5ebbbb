import { closeSync, fdatasyncSync, fstatSync, openSync, readSync, statSync, writeSync } from 'node:fs'
import { basename } from 'node:path'
import { MachineError } from './errors.js'

/** Bytes of a sector, in which virtio counts. */
export const SECTOR = 512

/** A disk's content. The caller keeps every range within its size. */
export interface Disk {
  /** The guest sees the first 20 bytes of it as the disk's serial number. */
  readonly name: string
  /** In bytes, a multiple of 512. */
  readonly size: number
  readonly readonly: boolean
  read(offset: number, into: Uint8Array): void
  write(offset: number, from: Uint8Array): void
  /** Returns when all that was written is durable. */
  flush(): void
  close(): void
}

/**
 * Opens a file as a disk. Two machines must not write to one file.
 * @throws MachineError `ERR_MACHINE_DISK`
 */
export function fileDisk(path: string, readonly: boolean): Disk {
  let fd: number
  try {
    // Opening a FIFO could wait for ever, and a directory opens but cannot be read.
    if (!statSync(path).isFile()) throw new Error('not a regular file')
    fd = openSync(path, readonly ? 'r' : 'r+')
  } catch (error) {
    throw new MachineError(
      'ERR_MACHINE_DISK',
      `the disk ${path} cannot be opened: ${(error as Error).message}`,
      {
        cause: error,
      },
    )
  }
  const { size } = fstatSync(fd)
  try {
    checkSectors(path, size)
  } catch (error) {
    closeSync(fd)
    throw error
  }
  return {
    name: basename(path),
    size,
    readonly,
    read: (offset, into) =>
      transfer(into.length, (done, left) => readSync(fd, into, done, left, offset + done)),
    write: (offset, from) =>
      transfer(from.length, (done, left) => writeSync(fd, from, done, left, offset + done)),
    flush: () => fdatasyncSync(fd),
    close: () => closeSync(fd),
  }
}

/**
 * Makes a disk of bytes; the guest's writes change them.
 * @throws MachineError `ERR_MACHINE_DISK`
 */
export function memoryDisk(name: string, bytes: Uint8Array, readonly: boolean): Disk {
  checkSectors(name, bytes.length)
  return {
    name,
    size: bytes.length,
    readonly,
    read: (offset, into) => into.set(bytes.subarray(offset, offset + into.length)),
    write: (offset, from) => bytes.set(from, offset),
    flush: () => undefined,
    close: () => undefined,
  }
}

function checkSectors(name: string, size: number): void {
  if (size > 0 && size % SECTOR === 0) return
  throw new MachineError(
    'ERR_MACHINE_DISK',
    `the disk ${name} has ${size} bytes: the size must be a multiple of ${SECTOR}, and not 0`,
  )
}

function transfer(length: number, some: (done: number, left: number) => number): void {
  for (let done = 0; done < length;) {
    const count = some(done, length - done)
    if (count === 0) throw new Error('the file has become shorter')
    done += count
  }
}
