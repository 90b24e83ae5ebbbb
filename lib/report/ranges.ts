/** Lists of numbers as Linux writes them: `0-3,8`. */
import * as v from 'valibot'

/** At most five digits a number. */
export const ranges = v.pipe(
  v.string(),
  v.maxLength(1000),
  v.regex(/^\d{1,5}(-\d{1,5})?(,\d{1,5}(-\d{1,5})?)*$/, 'is not a list of numbers like 0-3,8'),
)

/** Writes ascending numbers as a list. */
export function asRanges(numbers: readonly number[]): string {
  const found: [first: number, last: number][] = []
  for (const number of numbers) {
    const range = found.at(-1)
    if (range !== undefined && range[1] === number - 1) range[1] = number
    else found.push([number, number])
  }
  return found.map(([first, last]) => (first === last ? `${first}` : `${first}-${last}`)).join()
}

/** Returns whether a list contains a number. */
export function isInRanges(list: string, number: number): boolean {
  return list.split(',').some((range) => {
    const [first, last = first] = range.split('-').map(Number)
    return first! <= number && number <= last!
  })
}
