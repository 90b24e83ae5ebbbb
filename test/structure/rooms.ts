/** The rooms of lib/: which may import which. This list is the only one; CONTRIBUTING.md points here. */

/** A room imports itself and what stands below it. A name without an extension is a folder. */
export const rooms = [
  'cli',
  'machine',
  'interchange',
  'fleet',
  'migration',
  'lab',
  'conformance',
  'fuzz',
  'trace',
  'hosts',
  'simulator',
  'probe',
  'kvm',
  'kernel',
  'report',
  'documents',
  'backend.ts',
  'hypercalls',
  'arguments.ts',
  'registers',
  'uapi.ts',
  'literals.ts',
  'console-error.ts',
  'package-root.ts',
] as const

/** Entry points: they import any room, and no room imports them. */
export const entryPoints = ['index.ts', 'doors']

/** Rooms that need not be there yet. */
export const planned: readonly string[] = []

/** The first part of a path like `kvm/vm.ts`. */
function roomOf(path: string): string {
  return path.split('/')[0]!
}

/** Relative imports of a source, `import type` and `import()` included, as paths from lib/. */
function importsOf(path: string, source: string): string[] {
  const specifiers = source.matchAll(/(?:\bfrom|\bimport)\s*\(?\s*['"](\.[^'"]+)['"]/g)
  const base = new URL(path, 'file:///')
  return [...specifiers].map(([, specifier]) =>
    new URL(specifier!, base).pathname.slice(1).replace(/\.js$/, '.ts'),
  )
}

/** What in these sources (by path from lib/) breaks the order of the rooms, one sentence each. */
export function violations(sources: ReadonlyMap<string, string>): string[] {
  const order: readonly string[] = rooms
  const found: string[] = []
  for (const [path, source] of sources) {
    const room = roomOf(path)
    const isEntry = entryPoints.includes(room)
    if (!isEntry && !order.includes(room)) found.push(`${path}: ${room} is not in the list of rooms`)
    for (const imported of importsOf(path, source)) {
      const target = roomOf(imported)
      if (!sources.has(imported)) found.push(`${path} imports ${imported}, which is not in lib/`)
      else if (entryPoints.includes(target) && !isEntry)
        found.push(`${path} imports the entry point ${imported}`)
      else if (!isEntry && order.indexOf(target) < order.indexOf(room)) {
        found.push(`${path} imports ${imported}, which is above it`)
      }
    }
  }
  return found
}
