/** Simulates KVM in TypeScript from a recorded report. */
export { simulatorBackend } from './backend.js'
export { SimulatorError, type SimulatorErrorCode } from './errors.js'
