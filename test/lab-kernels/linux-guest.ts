/** Debian's kernels as guests of a machine inside a lab, with the modules its devices need. */
import { existsSync } from 'node:fs'
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { aptCache, arm64Packages, unpack, updateIndexes } from '../../lib/lab/apt.js'
import { publish, withCacheLock } from '../../lib/lab/cache.js'
import { executeOrFail } from '../../lib/lab/execute.js'
import { ensureKernel } from '../../lib/lab/kernels.js'

export interface LinuxGuest {
  readonly release: string
  /** The kernel's file. */
  readonly image: string
  /** A directory with the modules, whose names begin with numbers in the order to load them. */
  readonly modules: string
}

/** Below `kernel/`, each after those it needs; in every kernel some are built in, or are elsewhere, or are not there. */
const modules = [
  'drivers/virtio/virtio',
  'drivers/virtio/virtio_ring',
  'drivers/virtio/virtio_mmio',
  'drivers/block/virtio_blk',
  'drivers/char/hw_random/rng-core',
  'drivers/char/hw_random/virtio-rng',
  'drivers/char/virtio_console',
  'lib/crc16',
  'lib/crc/crc16',
  'crypto/crc32c_generic',
  'crypto/crc32c-cryptoapi',
  'lib/libcrc32c',
  'fs/mbcache',
  'fs/jbd2/jbd2',
  'fs/ext4/ext4',
]

/** Finds the newest kernel of a series; downloads what is not cached. */
export async function linuxGuest(series: string): Promise<LinuxGuest> {
  const { kernel, image } = await ensureKernel(series)
  const { release, version } = kernel!
  const directory = await withCacheLock(() =>
    publish(join('guest-modules', release), async (target) => {
      await updateIndexes(arm64Packages)
      const name = `linux-image-${release}=${version}`
      const facts = await aptCache(arm64Packages, ['show', '--no-all-versions', name])
      // Newer packages contain no modules but depend on the one that does.
      const separate = /\b(linux-modules-[^\s,]+) \(= ([^)]+)\)/.exec(facts)
      const tree = join(target, 'tree')
      await mkdir(target, { recursive: true })
      await unpack(arm64Packages, [separate ? `${separate[1]}=${separate[2]}` : name], tree)
      let order = 10
      for (const module of modules) {
        const bytes = await moduleBytes(tree, release, module)
        if (bytes) await writeFile(join(target, `${order++}-${basename(module)}.ko`), bytes)
      }
      await rm(tree, { recursive: true })
      if ((await readdir(target)).length === 0) throw new Error(`${name} has none of the modules`)
    }),
  )
  return { release, image, modules: directory }
}

async function moduleBytes(tree: string, release: string, module: string): Promise<Uint8Array | undefined> {
  for (const root of ['lib', 'usr/lib']) {
    const path = join(tree, root, 'modules', release, 'kernel', `${module}.ko`)
    if (existsSync(`${path}.xz`)) await executeOrFail('xz', ['--decompress', `${path}.xz`])
    if (existsSync(path)) return await readFile(path)
  }
  return undefined
}
