import { readFile } from 'node:fs/promises'

/** Something to put into an archive. Paths are relative to the root of the archive. */
export type ArchiveEntry =
  | { type: 'directory'; path: string }
  | { type: 'symlink'; path: string; target: string }
  /** The content, or the file to read it from. */
  | { type: 'file'; path: string; executable: boolean; content: Uint8Array | { file: string } }

/**
 * Writes a cpio archive in the "newc" format, which Linux unpacks as its initial root (kernel document
 * `driver-api/early-userspace/buffer-format.rst`). Everything belongs to root and dates from the epoch, so equal entries give equal
 * bytes.
 */
export async function* writeCpio(
  entries: Iterable<ArchiveEntry>,
): AsyncGenerator<Uint8Array, void, undefined> {
  let block: Uint8Array[] = []
  let length = 0
  for await (const piece of pieces(entries)) {
    if (length + piece.length > blockSize) {
      yield Buffer.concat(block)
      block = []
      length = 0
    }
    if (piece.length > blockSize) yield piece
    else {
      block.push(piece)
      length += piece.length
    }
  }
  yield Buffer.concat(block)
}

/** Small files are written together. */
const blockSize = 512 * 1024

async function* pieces(entries: Iterable<ArchiveEntry>): AsyncGenerator<Uint8Array, void, undefined> {
  let inode = 1
  for (const entry of entries) {
    const content = await contentOf(entry)
    yield header(inode++, entry.path, modeOf(entry), content.length)
    yield content
    yield padding(content.length)
  }
  yield header(0, 'TRAILER!!!', 0, 0)
}

function modeOf(entry: ArchiveEntry): number {
  if (entry.type === 'directory') return 0o040755
  if (entry.type === 'symlink') return 0o120777
  return entry.executable ? 0o100755 : 0o100644
}

async function contentOf(entry: ArchiveEntry): Promise<Uint8Array> {
  if (entry.type === 'directory') return new Uint8Array()
  if (entry.type === 'symlink') return Buffer.from(entry.target)
  return 'file' in entry.content ? await readFile(entry.content.file) : entry.content
}

function header(inode: number, path: string, mode: number, size: number): Uint8Array {
  const name = Buffer.from(`${path}\0`)
  const links = 1
  const fields = [inode, mode, 0, 0, links, 0, size, 0, 0, 0, 0, name.length, 0]
  const numbers = fields.map((field) => field.toString(16).padStart(8, '0')).join('')
  const head = Buffer.concat([Buffer.from(`070701${numbers}`), name])
  return Buffer.concat([head, padding(head.length)])
}

function padding(length: number): Uint8Array {
  return new Uint8Array(-length & 3)
}
