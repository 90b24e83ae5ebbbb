/** Formats a verdict as text. */
import { codeRow, type Finding, severities, type Severity } from '../../migration/finding.js'
import type { UnknownFact } from '../../migration/verdict.js'
import type { JudgedMove, VerdictDocument } from '../../migration/verdict-document.js'
import { originText } from '../../report/origin.js'
import { findingSubject, findingWords, severityWords } from '../../migration/words.js'
import { paint } from '../output.js'
import { count, wrap } from './text.js'

export function verdictText({ moves }: VerdictDocument): string {
  return moves.map(moveText).join('\n\n')
}

const predicted = {
  kernel: 'restored on the destination’s KVM',
  simulation: 'predicted on a simulation of the destination',
} as const

function moveText(move: JudgedMove): string {
  const { from, to, restoredOn, vmm, possible, registers, findings, unknown } = move
  const stopping = findings.filter(({ stops }) => stops).length
  const answer = possible ? paint('green', 'yes') : paint('red', 'no')
  const why =
    stopping > 0
      ? `, stopped by ${count(stopping, 'obstacle')}`
      : possible
        ? ''
        : ', the restore succeeds and breaks the guest'
  const known = possible && unknown.length > 0 ? ', as far as known' : ''
  const head = `${paint('bold', `${from.name} → ${to.name}`)}, ${vmmText(move)}: ${answer}${known}${why}`
  return [
    wrap(`${head}; ${registers.same} of ${registers.total} registers unchanged`, 0, 2),
    ...(unknown.length === 0
      ? []
      : [wrap(`${unknown.length} not known: ${unknown.map(unknownText).join(', ')}`, 2, 4)]),
    wrap(`answered by: ${originText(from)} → ${originText(to)}; ${predicted[restoredOn]}`, 2, 4),
    ...severities.flatMap((severity) => severityText(severity, findings, vmm)),
  ].join('\n')
}

/** `qemu@11.1 with pmu-v3, sve → pmu-v3; GICv3` */
export function vmmText({ vmm, features, interruptControllers }: JudgedMove): string {
  const [from, to] = [features.source, features.destination].map((list) => list.join(' ') || 'no features')
  const gics = [interruptControllers.source, interruptControllers.destination].filter((one) => one !== null)
  const gic = [...new Set(gics)].map((one) => one.replace('gic-', 'GIC')).join(' → ')
  return `${vmm} with ${from === to ? from : `${from} → ${to}`}${gic === '' ? '' : `, ${gic}`}`
}

/** `source features` */
function unknownText(fact: UnknownFact): string {
  return fact.replaceAll('-', ' ')
}

function severityText(severity: Severity, findings: readonly Finding[], vmm: string): string[] {
  const groups = new Map<string, Finding[]>()
  for (const [index, finding] of findings.entries()) {
    if (finding.severity !== severity) continue
    // Everything on which the words of listed codes depend.
    const key =
      finding.register !== undefined && codeRow(finding.code).isListed
        ? JSON.stringify([
            finding.code,
            finding.stops,
            finding.source === null,
            finding.capability,
            finding.announcedBy,
            finding.remedy,
          ])
        : String(index)
    groups.set(key, [...(groups.get(key) ?? []), finding])
  }
  if (groups.size === 0) return []
  const texts = [...groups.values()].flatMap((group) => groupText(group, vmm))
  return ['', `  ${paint('bold', severityWords(severity))}`, ...texts]
}

/** The number of names shown of registers with the same words. */
const NAMES = 6

function groupText(findings: readonly Finding[], vmm: string): string[] {
  const [first] = findings as [Finding]
  const { source, destination, meaning, remedy } = findingWords(first, vmm)
  const names = findings.map(findingSubject)
  const shown = names.slice(0, NAMES).join(', ')
  const more = names.length > NAMES ? ` and ${names.length - NAMES} more` : ''
  const what =
    names.length === 1
      ? `${names[0]}: ${source} → ${destination}`
      : `${names.length} registers: ${shown}${more}`
  return [
    wrap(`${what}${first.stops ? '' : ' (the move goes on)'}`, 4, 6),
    wrap(meaning, 6),
    wrap(`remedy: ${remedy}`, 6, 8),
  ]
}
