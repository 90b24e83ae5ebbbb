/** Finds names spelled like a misspelled one. */

/** Levenshtein's distance. */
function distance(a: string, b: string): number {
  let previous = Array.from({ length: b.length + 1 }, (_, j) => j)
  for (let i = 1; i <= a.length; i++) {
    const current = [i]
    for (let j = 1; j <= b.length; j++) {
      const substituted = (previous[j - 1] as number) + (a[i - 1] === b[j - 1] ? 0 : 1)
      current.push(Math.min(substituted, (previous[j] as number) + 1, (current[j - 1] as number) + 1))
    }
    previous = current
  }
  return previous[b.length] as number
}

/**
 * Returns up to three of `names` nearest to `text` whose spelling differs in at most a third of its letters, nearest first. `short`
 * returns a name without the prefix that people may omit. Case does not matter.
 */
export function nearestNames(
  text: string,
  names: readonly string[],
  short: (name: string) => string = (name) => name,
): string[] {
  const wanted = text.slice(0, 64).toLowerCase()
  const limit = Math.max(1, Math.floor(wanted.length / 3))
  return names
    .map((name) => {
      const far = Math.min(
        ...new Set([name, short(name)].map((form) => distance(wanted, form.toLowerCase()))),
      )
      return { name, far }
    })
    .filter(({ far }) => far <= limit)
    .toSorted((a, b) => a.far - b.far || (a.name < b.name ? -1 : 1))
    .slice(0, 3)
    .map(({ name }) => name)
}
