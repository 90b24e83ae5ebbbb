/**
 * Fails every operation in every place with every plausible errno (test/outages), and prints each wrong outcome. Arguments: `each`
 * for one errno in each place, which takes turns, or `all`; the number of places of each operation, if not all; and what the names
 * of the operations contain, if not all of them.
 */
import { failEveryPlace, type Problem } from '../test/outages/every-place.js'
import { checks, type Operation, operations, targetOf, tellsOfFault } from '../test/outages/operations.js'

const [errnos = 'all', ...rest] = process.argv.slice(2)
const samples = Number(rest[0]) || Number.POSITIVE_INFINITY
const names = Number(rest[0]) ? rest.slice(1) : rest

async function fail(name: string, parts: readonly Operation[]): Promise<void> {
  const started = performance.now()
  let faults = 0
  const found: Problem[] = []
  for (const operation of parts) {
    const tells = operation.tells ?? tellsOfFault
    const how = { samples, all: errnos === 'all' }
    const { tried, problems } = await failEveryPlace(() => targetOf(operation), operation, how, tells)
    faults += tried
    found.push(...problems)
  }
  const seconds = ((performance.now() - started) / 1000).toFixed(0)
  console.log(`${name}: ${faults} faults, ${found.length} problems, ${seconds} s`)
  const kinds = new Map<string, number[]>()
  for (const { place, method, errno, what } of found) {
    const kind = `${method} ${errno}: ${what}`
    kinds.set(kind, [...(kinds.get(kind) ?? []), place])
  }
  for (const [kind, places] of kinds) console.log(`  ${places.length} × ${kind} (first at ${places[0]})`)
  if (found.length > 0) process.exitCode = 1
}

const all: Readonly<Record<string, readonly Operation[]>> = {
  ...Object.fromEntries(Object.entries(operations).map(([name, operation]) => [name, [operation]])),
  conformance: Object.values(checks),
}
for (const [name, parts] of Object.entries(all)) {
  if (names.length === 0 || names.some((part) => name.includes(part))) await fail(name, parts)
}
