import { existsSync } from 'node:fs'
import { copyFile, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { arm64Packages, unpackWithDependencies, updateIndexes } from '../../lib/lab/apt.js'
import { publish, withCacheLock } from '../../lib/lab/cache.js'

/** Debian's own QEMUs for arm64 hosts, by the rules they are to be predicted by. */
export const qemuSuites = { 'qemu@10.0': 'trixie', 'qemu@11.1': 'sid' } as const

export type JudgedQemu = keyof typeof qemuSuites

const program = 'qemu-system-aarch64'

/** A directory with arm64 QEMU and every library it needs, the loader among them; downloaded through apt once, then cached. */
export function qemuDirectory(qemu: JudgedQemu): Promise<string> {
  const suite = qemuSuites[qemu]
  return withCacheLock(() =>
    publish(`qemu-${suite}`, async (target) => {
      await updateIndexes(arm64Packages)
      const tree = join(target, '.tree')
      await unpackWithDependencies(arm64Packages, { name: 'qemu-system-arm', suite }, tree)
      await copyNeeded(tree, target)
      await rm(tree, { recursive: true })
    }),
  )
}

/** The program and, over and over, the libraries whose names stand in what was copied. */
async function copyNeeded(tree: string, target: string): Promise<void> {
  const folders = ['usr/lib/aarch64-linux-gnu', 'lib/aarch64-linux-gnu', 'usr/lib'].map((name) =>
    join(tree, name),
  )
  const due = new Map([[program, join(tree, 'usr/bin', program)]])
  for (const [name, path] of due) {
    await copyFile(path, join(target, name))
    const content = await readFile(path, 'latin1')
    for (const [library] of content.matchAll(/(?:lib|ld-linux-)[\w.+-]*\.so[.\dt]*/g)) {
      const found = folders.map((folder) => join(folder, library)).find((candidate) => existsSync(candidate))
      if (found !== undefined) due.set(library, found)
    }
  }
}
