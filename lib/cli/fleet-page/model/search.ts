import type { HostClass } from './data.js'

/** Returns the classes in which every word of the query occurs: in the number, digest, CPU, kernel, origin or the names of hosts. */
export function search(classes: readonly HostClass[], query: string): Set<number> | undefined {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean)
  if (words.length === 0) return undefined
  return new Set(
    classes.flatMap((one, index) => {
      const text = [`class ${index + 1}`, one.digest, one.cpu, ...one.releases, one.answeredBy, one.first]
        .join('\n')
        .toLowerCase()
      const isThere = (word: string) =>
        text.includes(word) || one.names.some((name) => name.toLowerCase().includes(word))
      return words.every(isThere) ? [index] : []
    }),
  )
}
