import { encodeRegister, TIMER_ISTATUS } from '../registers/index.js'
import type { ReportedRegister } from '../report/report.js'
import type { Register, VcpuState } from './state.js'
import { counterValue } from './stored-registers.js'

const timers = ['KVM_REG_ARM_TIMER', 'KVM_REG_ARM_PTIMER'].map((timer) => ({
  control: encodeRegister(`${timer}_CTL`),
  compareValue: encodeRegister(`${timer}_CVAL`),
  counter: encodeRegister(`${timer}_CNT`),
}))

/**
 * Returns a timer's control register on kernels that show userspace whether the counter has reached the compare value
 * (`arch/arm64/kvm/arch_timer.c:read_timer_ctl`), as it has on a fresh vCPU; undefined for any other register.
 */
export function timerControl(
  { id, value }: ReportedRegister,
  slots: ReadonlyMap<bigint, number>,
  stored: Register,
): Register | undefined {
  const timer = timers.find(({ control }) => control === BigInt(id))
  const compareValue = timer && slots.get(timer.compareValue)
  if (compareValue === undefined || (BigInt(value!) & TIMER_ISTATUS) === 0n) return undefined
  return {
    limit: stored.limit,
    read(vcpu: VcpuState): bigint | number {
      const control = stored.read(vcpu)
      if (typeof control === 'number') return control
      const hasFired = counterValue(vcpu.vm, timer!.counter) >= vcpu.values[compareValue]!
      return hasFired ? control | TIMER_ISTATUS : control & ~TIMER_ISTATUS
    },
    write: (vcpu, written) => stored.write(vcpu, written),
  }
}
