/** What the simulator counts of a vCPU. A real one has more exits: faults and interrupts of its host. */
export class Counts {
  hvc = 0n
  wfi = 0n
  mmioUser = 0n
  mmioKernel = 0n

  /** By the kernel's names. */
  get byName(): ReadonlyMap<string, bigint> {
    return new Map([
      ['hvc_exit_stat', this.hvc],
      ['wfi_exit_stat', this.wfi],
      ['mmio_exit_user', this.mmioUser],
      ['mmio_exit_kernel', this.mmioKernel],
      ['exits', this.hvc + this.wfi + this.mmioUser + this.mmioKernel],
    ])
  }
}
