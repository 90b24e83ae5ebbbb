export { kernelBackend } from './backend.js'
export { AddonError, type AddonErrorCode } from './load-addon.js'
