import { readdir, lstat, readFile, readlink, realpath, stat } from 'node:fs/promises'
import { existsSync } from 'node:fs'
import { basename, dirname, isAbsolute, join, relative, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { packageRoot } from '../package-root.js'
import type { ArchiveEntry } from './cpio.js'
import { LabError } from './errors.js'

/** Lists everything under a directory of this machine, for the archive's directory `prefix`; links stay links. */
export async function treeEntries(
  directory: string,
  prefix: string,
  wanted: (name: string, isDirectory: boolean) => boolean = () => true,
): Promise<ArchiveEntry[]> {
  const entries: ArchiveEntry[] = []
  for (const item of (await readdir(directory, { withFileTypes: true })).toSorted((a, b) =>
    a.name < b.name ? -1 : 1,
  )) {
    if (!wanted(item.name, item.isDirectory())) continue
    const path = join(prefix, item.name)
    const file = join(directory, item.name)
    if (item.isDirectory()) {
      entries.push({ type: 'directory', path }, ...(await treeEntries(file, path, wanted)))
    } else if (item.isSymbolicLink()) {
      entries.push({ type: 'symlink', path, target: await readlink(file) })
    } else if (item.isFile()) {
      entries.push(await fileEntry(file, path))
    }
  }
  return entries
}

async function fileEntry(file: string, path: string): Promise<ArchiveEntry> {
  const { mode } = await lstat(file)
  return { type: 'file', path, executable: (mode & 0o111) !== 0, content: { file } }
}

/** The directory in which commands start, and in which copied files are. */
const workingDirectory = 'lab'

/**
 * Resolves the paths in `copy`: a path below the current directory keeps its place, so that `src/a.js` is `src/a.js` inside too;
 * any other path keeps only its last part. Directories are copied with everything in them.
 *
 * @throws LabError `ERR_LAB_COPY`
 */
export async function copiedEntries(paths: readonly string[]): Promise<ArchiveEntry[]> {
  const entries = new Map<string, ArchiveEntry>()
  for (const path of paths) {
    const below = relative('.', path)
    const place =
      below === '' || (!below.startsWith('..') && !isAbsolute(below)) ? below : basename(resolve(path))
    let file: string
    let isDirectory: boolean
    try {
      file = await realpath(path)
      isDirectory = (await stat(file)).isDirectory()
    } catch (error) {
      throw new LabError('ERR_LAB_COPY', `cannot copy ${path} into the lab: ${(error as Error).message}`, {
        cause: error,
      })
    }
    const parts = place.split('/').filter((part) => part !== '')
    const parents = isDirectory ? parts : parts.slice(0, -1)
    parents.forEach((_, index) => {
      const parent = join(workingDirectory, ...parents.slice(0, index + 1))
      entries.set(parent, { type: 'directory', path: parent })
    })
    const inside = join(workingDirectory, place)
    const found = isDirectory ? await treeEntries(file, inside) : [await fileEntry(file, inside)]
    for (const entry of found) entries.set(entry.path, entry)
  }
  return [...entries.values()]
}

interface Manifest {
  name: string
  dependencies?: Record<string, string>
  optionalDependencies?: Record<string, string>
  bin?: Record<string, string>
}

/**
 * Lists this package and its run-time dependencies, laid out so that `import 'kvm-arm64'` works from anywhere in the machine and
 * `kvm-arm64` is on its PATH. Of native code, it includes only what is built for arm64 Linux.
 */
export async function packageEntries(): Promise<ArchiveEntry[]> {
  const root = fileURLToPath(packageRoot)
  const manifest = await readManifest(root)
  const home = join('node_modules', manifest.name)
  const entries: ArchiveEntry[] = [
    { type: 'directory', path: 'node_modules' },
    { type: 'directory', path: home },
    await fileEntry(join(root, 'package.json'), join(home, 'package.json')),
  ]
  const add = async (folder: string, wanted: (name: string, isDirectory: boolean) => boolean) => {
    if (!existsSync(join(root, folder))) return
    const parts = folder.split('/')
    parts.forEach((_, index) =>
      entries.push({ type: 'directory', path: join(home, ...parts.slice(0, index + 1)) }),
    )
    entries.push(...(await treeEntries(join(root, folder), join(home, folder), wanted)))
  }
  await add('dist/bundle', () => true)
  await add('lib', (name, isDirectory) => isDirectory || name.endsWith('.json'))
  await add('prebuilds/linux-arm64', () => true)
  for (const [name, path] of Object.entries(manifest.bin ?? {})) {
    const main = entries.find((entry) => entry.path === join(home, path))
    if (main?.type === 'file') main.executable = true
    entries.push({ type: 'symlink', path: `usr/local/bin/${name}`, target: join('/', home, path) })
  }
  const placed = new Map([[home, root]])
  await addDependencies(await realpath(root), manifest, home, placed, entries)
  return entries
}

/** The remedy where the package has no addon for the machine: that of npm always has one. */
export const howToBuildArm64Addon = 'in a clone, run: npm run build:addon -- --arm64'

/** Returns whether the addon has been built for the machine, so that the package inside reaches real KVM. */
export function hasArm64Addon(): boolean {
  return existsSync(new URL('prebuilds/linux-arm64/', packageRoot))
}

async function addDependencies(
  directory: string,
  manifest: Manifest,
  home: string,
  placed: Map<string, string>,
  entries: ArchiveEntry[],
): Promise<void> {
  for (const name of Object.keys({ ...manifest.dependencies, ...manifest.optionalDependencies })) {
    const source = await findDependency(name, directory)
    if (!source) continue
    // Next to the others, or below its dependent if another version has that place.
    let place = join('node_modules', name)
    if (placed.has(place) && placed.get(place) !== source) place = join(home, 'node_modules', name)
    if (placed.has(place)) continue
    placed.set(place, source)
    if (place.startsWith(home)) entries.push({ type: 'directory', path: join(home, 'node_modules') })
    if (name.startsWith('@')) entries.push({ type: 'directory', path: dirname(place) })
    entries.push({ type: 'directory', path: place })
    entries.push(...(await treeEntries(source, place, isRuntimeFile)))
    await addDependencies(source, await readManifest(source), place, placed, entries)
  }
}

const isRuntimeFile = (name: string, isDirectory: boolean): boolean =>
  isDirectory ? name !== 'node_modules' : /\.(js|mjs|cjs|json)$/.test(name) && !/\.min\./.test(name)

/** Node's own rule: the nearest `node_modules` upwards that has it. */
async function findDependency(name: string, from: string): Promise<string | undefined> {
  for (let directory = from; ; directory = dirname(directory)) {
    const candidate = join(directory, 'node_modules', name)
    if (existsSync(join(candidate, 'package.json'))) return await realpath(candidate)
    if (directory === dirname(directory)) return undefined
  }
}

async function readManifest(directory: string): Promise<Manifest> {
  return JSON.parse(await readFile(join(directory, 'package.json'), 'utf8')) as Manifest
}
