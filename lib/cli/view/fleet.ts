/** Words of a fleet's document that its text and its page share. */
import type { FleetDocument } from '../../fleet/document.js'
import { originText } from '../../report/origin.js'
import { psciText } from '../../migration/words.js'

/** The version of PSCI that guests of a class are given. */
export function classPsci({ psciVersion }: FleetDocument['classes'][number]): string {
  return psciVersion === null ? 'unknown' : psciText(BigInt(psciVersion))
}

/** Who answered when the reports of a class were made. */
export function classOrigins({ origins }: FleetDocument['classes'][number]): string {
  const texts = origins.map((entry) => ({ ...entry, text: originText(entry) }))
  return texts.map(({ text, hosts }) => (texts.length === 1 ? text : `${text} (${hosts})`)).join(', ')
}

/** Whether a kernel answered every report of a class. */
export function isFromKernels({ origins }: FleetDocument['classes'][number]): boolean {
  return origins.every(({ origin }) => origin.kind === 'kernel')
}

/** What keeps two classes apart: a register, or the code of what the destination refuses. */
export function divideSubject(divide: FleetDocument['divides'][number]): string {
  return 'register' in divide ? divide.register.name : divide.code
}
