/** Hypercalls: function ids of the SMC Calling Convention, the services KVM offers and what gates them, PSCI. */
export { decodeFunctionId, encodeFunctionId, type FunctionIdParts, ownerName } from './function-id.js'
export {
  functionIdOf,
  functionIds,
  functionName,
  functionNamed,
  functionOf,
  type HypercallFunction,
  hypercallFunctions,
  kvmUid,
  nearestFunctionNames,
  NOT_SUPPORTED,
  resultText,
  resultWord,
  smcccReturns,
  trngReturns,
} from './functions.js'
export {
  affinityLevels,
  decodePsciVersion,
  encodePsciVersion,
  MPIDR_HWID_BITMASK,
  psci01Functions,
  type PsciFunction,
  psciFunctions,
  psciReturns,
  type PsciVersion,
  psciVersions,
} from './psci.js'
export {
  allowedByDefault,
  bitmapOfServices,
  type Gate,
  gateOf,
  knownMask,
  type Service,
  type ServiceBitmap,
  serviceBitmapOf,
  serviceBitmaps,
  type ServiceGroup,
  servicesInBitmap,
  UnknownServiceError,
} from './services.js'
export { type Workaround, type WorkaroundLevel, workarounds } from './workarounds.js'
