import { readFile } from 'node:fs/promises'
import { type ArchiveEntry, writeCpio } from '../lab/cpio.js'

/** What is at a path of an initial root: a text, bytes, the content of a file of this machine, or a symbolic link. */
export type RootEntry = string | Uint8Array | { readonly file: string } | { readonly link: string }

/**
 * Makes an initial root for Linux. The directories of each path are made too, and every file is executable.
 * @param entries by path in the root: `init`, `bin/busybox`; a path that ends with `/` is an empty directory
 *
 * @example
 * const initrd = await initramfs({
 *   init: '#!/bin/busybox sh\nexec /bin/busybox sh\n',
 *   'bin/busybox': { file: '/bin/busybox' },
 * })
 */
export async function initramfs(entries: Readonly<Record<string, RootEntry>>): Promise<Uint8Array> {
  const list = new Map<string, ArchiveEntry>()
  for (const [given, entry] of Object.entries(entries)) {
    const parts = given.split('/').filter((part) => part !== '')
    const path = parts.join('/')
    const parents = given.endsWith('/') ? parts : parts.slice(0, -1)
    for (const index of parents.keys()) {
      const parent = parts.slice(0, index + 1).join('/')
      list.set(parent, { type: 'directory', path: parent })
    }
    if (!given.endsWith('/')) list.set(path, await archiveEntry(path, entry))
  }
  const pieces: Uint8Array[] = []
  for await (const piece of writeCpio(list.values())) pieces.push(piece)
  return Buffer.concat(pieces)
}

async function archiveEntry(path: string, entry: RootEntry): Promise<ArchiveEntry> {
  if (typeof entry === 'object' && 'link' in entry) return { type: 'symlink', path, target: entry.link }
  const content =
    typeof entry === 'string'
      ? Buffer.from(entry)
      : entry instanceof Uint8Array
        ? entry
        : await readFile(entry.file)
  return { type: 'file', path, executable: true, content }
}
