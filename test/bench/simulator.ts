/** How much the simulator answers, and how much of a trace is replayed on it, in a second of processor time. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Kvm, openKvm } from '../../lib/kvm/index.js'
import { encodeRegister } from '../../lib/registers/index.js'
import { simulator } from '../../lib/hosts/index.js'
import { formatTrace, readTrace, replay, type TraceEntry } from '../../lib/trace/index.js'

const HOST = 'linux-6.12-max'
const CALLS = 1_000_000
/** Of every kind with rules of its own: core, firmware, bitmap, ID and other system registers. */
const registers = ['x0', 'KVM_REG_ARM_PSCI_VERSION', 'KVM_REG_ARM_STD_BMAP', 'ID_AA64PFR0_EL1', 'TPIDR_EL0']

function perSecond(calls: number, work: () => void): number {
  const before = process.cpuUsage()
  work()
  const { user, system } = process.cpuUsage(before)
  return calls / ((user + system) / 1e6)
}

/** Reads and writes of single registers. */
export function registerAccesses(): number {
  using kvm = openKvm(simulator(HOST))
  const vm = kvm.fd.createVm(0n)
  if (typeof vm === 'number') throw new Error(`KVM_CREATE_VM: ${vm}`)
  const vcpu = vm.createVcpu(0)
  if (typeof vcpu === 'number') throw new Error(`KVM_CREATE_VCPU: ${vcpu}`)
  vcpu.init(5, [4])
  const ids = registers.map(encodeRegister)
  const access = (calls: number): void => {
    for (let call = 0; call < calls; call += 2 * ids.length) {
      for (const id of ids) vcpu.setOneReg(id, vcpu.getOneReg(id) as bigint)
    }
  }
  access(CALLS / 10)
  return perSecond(CALLS, () => access(CALLS))
}

/** Calls of a trace, read from its file and made on the simulator. */
export function replayedCalls(): number {
  const folder = mkdtempSync(join(tmpdir(), 'kvm-arm64-bench-'))
  try {
    const file = join(folder, 'long.ndjson')
    using kvm = openKvm(simulator(HOST))
    writeFileSync(file, formatTrace({ host: kvm.backend.host.release }, longTrace(CALLS / 5)))
    const again = (): void => replayWhole(file, kvm)
    again()
    return perSecond(CALLS / 5, again)
  } finally {
    rmSync(folder, { recursive: true })
  }
}

function replayWhole(file: string, kvm: Kvm): void {
  replay(readTrace(file).entries, kvm.fd, ({ call, replayed }) => {
    throw new Error(`${JSON.stringify(call)} was answered ${JSON.stringify(replayed)}`)
  })
}

function longTrace(calls: number): TraceEntry[] {
  const id = `0x${encodeRegister('KVM_REG_ARM_STD_BMAP').toString(16)}`
  const done = { ret: 0 }
  const entries: TraceEntry[] = [
    { call: { op: 'create_vm', vm: 0, type: '0x0' }, outcome: done },
    { call: { op: 'create_vcpu', vm: 0, vcpu: 0, id: 0 }, outcome: done },
    { call: { op: 'vcpu_init', vcpu: 0, target: 'preferred', features: ['0x4'] }, outcome: done },
  ]
  while (entries.length < calls) {
    const value = `0x${entries.length & 1}`
    entries.push(
      { call: { op: 'set_one_reg', vcpu: 0, id, value }, outcome: done },
      { call: { op: 'get_one_reg', vcpu: 0, id }, outcome: { value } },
    )
  }
  return entries
}
