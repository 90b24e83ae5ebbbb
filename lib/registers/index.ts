/** Register ids of arm64 KVM: bits ⇄ parts ⇄ names. */
export {
  decodeFields,
  type Field,
  fieldMask,
  type FieldValue,
  fieldValue,
  registerField,
  registerFields,
  type SafeRule,
  withField,
} from './fields.js'
export {
  allBits,
  ARM64,
  arm64Id,
  coprocessors,
  hex,
  idFromParts,
  type IdParts,
  idParts,
  registerWidth,
  sizes,
  U64,
  withSize,
} from './id.js'
export {
  cleansByItself,
  featureIdAt,
  featureIdIndex,
  hasAArch32,
  implementationIds,
  isAArch32IdRegister,
  isFeatureIdRegister,
  isIdRegister,
  needsNoCleaning,
} from './id-registers.js'
export type { BitmapRegisterName } from './firmware.js'
export { type Mention, registerMentions } from './mentions.js'
export { nearestNames } from './nearest.js'
export { setClearPairs } from './pmu.js'
export {
  decodeRegister,
  encodeRegister,
  type Register,
  registerName,
  type RegisterName,
  type RegisterSpace,
  UnknownRegisterError,
} from './register.js'
export { systemRegisterId, type SystemRegisterParts } from './sysregs.js'
export { TIMER_ISTATUS, timerControls, timerCounters, withoutIstatus } from './timers.js'
