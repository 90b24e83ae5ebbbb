/** Words of a fleet's document that its text and its page share. */
import type { FleetDocument } from '../../fleet/document.js'
import { psciText } from '../../migration/words.js'

/** The version of PSCI that guests of a class are given. */
export function classPsci({ psciVersion }: FleetDocument['classes'][number]): string {
  return psciVersion === null ? 'unknown' : psciText(BigInt(psciVersion))
}

/** What keeps two classes apart: a register, or the code of what the destination refuses. */
export function divideSubject(divide: FleetDocument['divides'][number]): string {
  return 'register' in divide ? divide.register.name : divide.code
}
