/** Words for a fleet's document that its text and its page share. */
import type { FleetDocument } from '../../fleet/document.js'
import { originText } from '../../report/origin.js'
import { psciText } from '../../migration/words.js'

/** The PSCI version that guests of a class get. */
export function classPsci({ psciVersion }: FleetDocument['classes'][number]): string {
  return psciVersion === null ? 'unknown' : psciText(BigInt(psciVersion))
}

/** Describes what answered KVM's calls when the reports of a class were made. */
export function classOrigins({ origins }: FleetDocument['classes'][number]): string {
  const texts = origins.map((entry) => ({ ...entry, text: originText(entry) }))
  return texts.map(({ text, hostCount }) => (texts.length === 1 ? text : `${text} (${hostCount})`)).join(', ')
}

/** Returns whether a kernel answered in every report of a class. */
export function isFromKernels({ origins }: FleetDocument['classes'][number]): boolean {
  return origins.every(({ origin }) => origin.kind === 'kernel')
}

/** Names what keeps two classes apart: a register, or the code of what the destination refuses. */
export function divideSubject(divide: FleetDocument['divides'][number]): string {
  return 'register' in divide ? divide.register.name : divide.code
}
