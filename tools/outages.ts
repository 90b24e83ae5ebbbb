/**
 * Fails every operation in every place with every plausible errno (test/outages), and prints each wrong outcome. Arguments: the
 * number of places of each operation, if not all, and the operations, if not all.
 */
import { simulator } from '../lib/hosts/index.js'
import { failEveryPlace } from '../test/outages/every-place.js'
import { HOST, operations, tellsOfFault } from '../test/outages/operations.js'

const [first = '', ...names] = process.argv.slice(2)
const samples = first === '' || first === 'all' ? Number.POSITIVE_INFINITY : Number(first)

for (const [name, operation] of Object.entries(operations)) {
  if (names.length > 0 && !names.includes(name)) continue
  const started = performance.now()
  const { tried, problems } = await failEveryPlace(
    () => simulator(HOST),
    operation,
    { samples, all: true },
    tellsOfFault,
  )
  const seconds = ((performance.now() - started) / 1000).toFixed(0)
  console.log(`${name}: ${tried} faults, ${problems.length} problems, ${seconds} s`)
  const kinds = new Map<string, number[]>()
  for (const { place, method, errno, what } of problems) {
    const kind = `${method} ${errno}: ${what}`
    kinds.set(kind, [...(kinds.get(kind) ?? []), place])
  }
  for (const [kind, places] of kinds) console.log(`  ${places.length} × ${kind} (first at ${places[0]})`)
  if (problems.length > 0) process.exitCode = 1
}
