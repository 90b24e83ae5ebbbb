import * as zlib from 'node:zlib'
import { MachineError } from './errors.js'

/** An arm64 kernel, uncompressed, with what its header says (kernel document `arch/arm64/booting.rst`). */
export interface KernelImage {
  readonly bytes: Uint8Array
  /** Distance from a 2 MiB boundary at which it must lie, in bytes. */
  readonly textOffset: number
  /** Memory it needs from there on, in bytes: its file, and what it zeroes. */
  readonly size: number
}

const HEADER_SIZE = 64
const TEXT_ALIGNMENT = 0x1000n
/** `ARM\x64` */
const IMAGE_MAGIC = 0x644d_5241
const IMAGE_MAGIC_OFFSET = 56
/** `MZ`, and behind it `zimg`: a kernel that its EFI stub unpacks (`drivers/firmware/efi/libstub/zboot-header.S`). */
const ZBOOT_MAGIC = 'zimg'
/** An uncompressed kernel of today has 50 MB; a damaged or hostile file could unpack without end. */
const UNPACKED_LIMIT = 1 << 30

/**
 * Reads a kernel: an Image, one packed with gzip (`Image.gz`), or an EFI zboot image (`vmlinuz.efi`), whose payload may be packed
 * with gzip or, from Node.js 22.15 on, zstd.
 * @throws MachineError `ERR_MACHINE_KERNEL`
 */
export function readKernelImage(file: Uint8Array): KernelImage {
  const bytes = unpacked(file)
  const view = viewOf(bytes)
  if (bytes.length < HEADER_SIZE || view.getUint32(IMAGE_MAGIC_OFFSET, true) !== IMAGE_MAGIC) {
    throw notKernel(`it is no arm64 Image${guess(bytes)}`)
  }
  const textOffset = view.getBigUint64(8, true)
  const size = view.getBigUint64(16, true)
  if (size === 0n) throw notKernel('its header gives no size, as before Linux 3.17')
  if (size > BigInt(UNPACKED_LIMIT) || textOffset >= 0x20_0000n) {
    throw notKernel('its header is damaged: it needs more than 1 GiB, or begins beyond 2 MiB')
  }
  // Its first instruction is there.
  if (textOffset % TEXT_ALIGNMENT !== 0n) {
    throw notKernel(`its header is damaged: it begins at ${textOffset}, not on a page of 4 KiB`)
  }
  if (size < BigInt(bytes.length))
    throw notKernel('its header is damaged: the file is longer than the size in it')
  return { bytes, textOffset: Number(textOffset), size: Number(size) }
}

function unpacked(file: Uint8Array): Uint8Array {
  if (file[0] === 0x1f && file[1] === 0x8b) return unpack('gzip', file)
  if (file.length < HEADER_SIZE) return file
  const view = viewOf(file)
  if (latin1(file, 0, 2) !== 'MZ' || latin1(file, 4, 8) !== ZBOOT_MAGIC) return file
  const offset = view.getUint32(8, true)
  const size = view.getUint32(12, true)
  if (offset + size > file.length)
    throw notKernel('it is cut off: its payload ends beyond the end of the file')
  const [compression] = latin1(file, 24, 56).split('\0')
  return unpack(compression!, file.subarray(offset, offset + size))
}

type Unpack = (bytes: Uint8Array, options: { maxOutputLength: number }) => Uint8Array

function unpack(compression: string, bytes: Uint8Array): Uint8Array {
  const known: Record<string, Unpack | undefined> = {
    gzip: zlib.gunzipSync,
    // From Node.js 22.15 on.
    zstd: (zlib as { zstdDecompressSync?: Unpack }).zstdDecompressSync,
  }
  const method = Object.hasOwn(known, compression) ? known[compression] : undefined
  if (method === undefined) {
    throw notKernel(
      `it is packed with ${JSON.stringify(compression)}, which this Node.js cannot unpack; extract the Image from it`,
    )
  }
  try {
    return method(bytes, { maxOutputLength: UNPACKED_LIMIT })
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    const problem = code === 'ERR_BUFFER_TOO_LARGE' ? 'it would have more than 1 GiB' : message
    throw notKernel(`it cannot be unpacked (${compression}): ${problem}`, error)
  }
}

/** What a file that is no Image probably is. */
function guess(bytes: Uint8Array): string {
  if (bytes.length < HEADER_SIZE) return `: it has ${bytes.length} bytes`
  if (latin1(bytes, 0, 4) === '\x7fELF') return ' but an ELF file: give arch/arm64/boot/Image, not vmlinux'
  if (latin1(bytes, 0x202, 0x206) === 'HdrS') return ' but a kernel for x86'
  return ''
}

function notKernel(why: string, cause?: unknown): MachineError {
  return new MachineError('ERR_MACHINE_KERNEL', `the kernel cannot be booted: ${why}`, { cause })
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

function latin1(bytes: Uint8Array, start: number, end: number): string {
  return Buffer.from(bytes.subarray(start, end)).toString('latin1')
}
