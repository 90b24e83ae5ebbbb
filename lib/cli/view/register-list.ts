import { type Kvm, KvmError } from '../../kvm/index.js'
import { decodeRegister, hex } from '../../registers/index.js'
import type { Report } from '../../report/report.js'
import type { VcpuFeature } from '../../uapi.js'
import { CommandError, exitStatus } from '../exit.js'
import { table } from './table.js'

export interface ListedRegister {
  id: string
  name: string
  /** Width in bits. */
  width: number
  /** Null if the register counts time. */
  value: string | null
}

/**
 * Lists every register that a vCPU with these features has on this host, in `KVM_GET_REG_LIST`'s order, with its value.
 * @param report of the same host: shows which registers count time
 * @throws CommandError with the status of a negative answer if the host has no such vCPU
 */
export function listRegisters(kvm: Kvm, report: Report, features: readonly VcpuFeature[]): ListedRegister[] {
  using vm = kvm.createVm()
  using vcpu = refusing(features, () => vm.createVcpu(0, { features }))
  const added = report.configurations.flatMap((configuration) =>
    'refused' in configuration ? [] : configuration.added,
  )
  const counters = new Set(
    [...report.registers, ...added].filter(({ value }) => value === null).map(({ id }) => id),
  )
  return Array.from(vcpu.registers.list(), (number) => {
    const { name, width } = decodeRegister(number)
    const id = hex(number)
    const value = counters.has(id) ? null : hex(vcpu.registers.get(number))
    return { id, name, width, value }
  })
}

function refusing<T>(features: readonly VcpuFeature[], create: () => T): T {
  try {
    return create()
  } catch (error) {
    if (!(error instanceof KvmError)) throw error
    throw new CommandError(
      `this host has no vCPU with the features ${features.join(', ')} (${error.code})`,
      exitStatus.negative,
    )
  }
}

export function registerTable(registers: readonly ListedRegister[]): string {
  const rows = registers.map(({ id, name, width, value }) => [name, id, `${width}`, value ?? '(counts time)'])
  return table(['register', 'id', 'bits', 'value'], rows)
}
