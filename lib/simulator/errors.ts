export type SimulatorErrorCode =
  | 'ERR_KVM_UNKNOWN_HOST'
  | 'ERR_KVM_SIMULATOR_NO_DEVICE'
  | 'ERR_KVM_SIMULATOR_NO_GUEST_CODE'
  | 'ERR_KVM_SIMULATOR_NOT_RECORDED'

/** Thrown for what the simulator cannot do. What the simulated host refuses is an errno instead. */
export class SimulatorError extends Error {
  override readonly name = 'SimulatorError'
  readonly code: SimulatorErrorCode

  constructor(code: SimulatorErrorCode, message: string) {
    super(message)
    this.code = code
  }
}
