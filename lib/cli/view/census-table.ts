import { functionName, resultText } from '../../hypercalls/index.js'
import type { Report } from '../../report/report.js'
import { table } from './table.js'

type Discoveries = NonNullable<Report['census']>

/** Formats what a guest discovered, from the command `census` or from a report. */
export function censusTable(found: Discoveries): string {
  const rows = found.map((call) => [
    call.conduit,
    call.name,
    call.functionId,
    BigInt(call.argument) === 0n ? '' : functionName(Number(call.argument)),
    answerText(call),
  ])
  return table(['by', 'function', 'id', 'about', 'answer'], rows)
}

function answerText({ x, exit }: Discoveries[number]): string {
  if (exit) return exit === 'interrupted' ? 'waits' : `ends the run: ${exit.replace('system-event ', '')}`
  if (x === null) return 'the time'
  const words = x.map(BigInt)
  const last = words.findLastIndex((word) => word !== 0n)
  return words
    .slice(0, Math.max(1, last + 1))
    .map(resultText)
    .join(' ')
}
