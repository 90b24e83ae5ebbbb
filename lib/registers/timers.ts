/**
 * The timers' ids. They look like system registers, but two of them were swapped when the ABI was made and had to stay so: the id with the
 * encoding of CNTV_CVAL_EL0 holds the counter CNTVCT, and the id with the encoding of CNTVCT_EL0 holds the compare value CNTV_CVAL
 * (`Documentation/virt/kvm/api.rst`, KVM_SET_ONE_REG).
 *
 * So the canonical name of all six is KVM's, which says what the id holds. The architectural name encodes to the id whose *content*
 * it names: `CNTV_CVAL_EL0` is `KVM_REG_ARM_TIMER_CVAL`. To get the id with the encoding of CNTV_CVAL_EL0, write `S3_3_C14_C3_2`.
 */
import { systemRegisterId } from './sysregs.js'

interface TimerEntry<Name extends string = string, Content extends string = string> {
  name: Name
  /** Name of the system register whose content the id holds. */
  content: Content
  /** Name of the system register whose encoding the id has. */
  encoding: string
  op0: 3
  op1: 3
  crn: 14
  crm: number
  op2: number
}

function timer<const Name extends string, const Content extends string>(
  name: Name,
  content: Content,
  encoding: string,
  crm: number,
  op2: number,
): TimerEntry<Name, Content> {
  return { name, content, encoding, op0: 3, op1: 3, crn: 14, crm, op2 }
}

export const timerRegisters = [
  timer('KVM_REG_ARM_TIMER_CTL', 'CNTV_CTL_EL0', 'CNTV_CTL_EL0', 3, 1),
  timer('KVM_REG_ARM_TIMER_CNT', 'CNTVCT_EL0', 'CNTV_CVAL_EL0', 3, 2),
  timer('KVM_REG_ARM_TIMER_CVAL', 'CNTV_CVAL_EL0', 'CNTVCT_EL0', 0, 2),
  timer('KVM_REG_ARM_PTIMER_CTL', 'CNTP_CTL_EL0', 'CNTP_CTL_EL0', 2, 1),
  timer('KVM_REG_ARM_PTIMER_CVAL', 'CNTP_CVAL_EL0', 'CNTP_CVAL_EL0', 2, 2),
  timer('KVM_REG_ARM_PTIMER_CNT', 'CNTPCT_EL0', 'CNTPCT_EL0', 0, 1),
] as const

export type TimerRegisterName = (typeof timerRegisters)[number]['name' | 'content']

const idsOf = (suffix: string): ReadonlySet<bigint> =>
  new Set(timerRegisters.filter(({ name }) => name.endsWith(suffix)).map(systemRegisterId))

/** Registers that count time: two reads differ. */
export const timerCounters = idsOf('_CNT')
export const timerControls = idsOf('_CTL')
/** The bit of a timer's control that only shows whether the time has come. */
export const TIMER_ISTATUS = 4n

/** Returns a register's value, without that bit if the register is a timer's control. */
export function withoutIstatus(id: bigint, value: bigint): bigint {
  return timerControls.has(id) ? value & ~TIMER_ISTATUS : value
}

export function timerDescription({ content, encoding }: { content: string; encoding: string }): string {
  return content === encoding
    ? `holds ${content}`
    : `holds ${content}, although the id has the encoding of ${encoding} (a historic swap)`
}
