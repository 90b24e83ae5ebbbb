export { wrongArchitecture } from './architecture.js'
export { kernelBackend } from './backend.js'
export { AddonError, type AddonErrorCode, findAddon, loadAddon } from './load-addon.js'
