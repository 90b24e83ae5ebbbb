import { decodePsciVersion } from '../hypercalls/index.js'
import { encodeRegister, hasAArch32, hex, isAArch32IdRegister, isIdRegister } from '../registers/index.js'
import { classOf } from '../report/digest.js'
import {
  CNTFRQ_EL0,
  guestRead,
  hasMte,
  type InterruptController,
  interruptControllersOf,
  ipaLimitOf,
  isProtectedKvm,
  pageSizeOf,
} from '../report/machine.js'
import type { Origin } from '../report/origin.js'
import { bitmapsOf, mitigationsOf, registerValue } from '../report/registers.js'
import type { Report } from '../report/report.js'
import type { VcpuFeature } from '../uapi.js'

/** The facts about a cluster node that matter for placing VMs on it. */
interface NodeFacts {
  /** The class as `kvm-arm64 fleet` shows it; hosts of one class show the same. */
  hostClass: string
  release: string
  /** What answered when the host was probed, so that a simulation does not pass for a machine. */
  origin: Origin['kind']
  /** A version like `1.1`, the newest. */
  psci: string
  /** MIDR_EL1 */
  midr: string
  vcpuFeatures: readonly VcpuFeature[]
  /** Bits a VM may elect: name without `KVM_REG_ARM_`, and mask. */
  bitmaps: readonly { name: string; mask: string }[]
  /** Name without `KVM_REG_ARM_`, and value. */
  workarounds: readonly { name: string; value: string }[]
  /** Feature ID registers; no AArch32 ones if guests have no AArch32. */
  idRegisters: readonly { name: string; value: string }[]
  /** What a guest reads from the CPU itself; empty if not recorded. */
  guestReads: readonly { name: string; value: string }[]
  /** Hz; undefined, as the following, if not recorded. */
  counterFrequency: bigint | undefined
  interruptControllers: readonly InterruptController[] | undefined
  /** Bytes. */
  pageSize: number | undefined
  /** The most bits of guest physical address. */
  ipaLimit: number | undefined
  mte: boolean | undefined
  protectedKvm: boolean | undefined
  cpuKinds: number | undefined
}

const withoutPrefix = (name: string): string => name.replace(/^KVM_REG_ARM_/, '')

export function nodeFacts(report: Report): NodeFacts {
  const valueOf = (name: string) => registerValue(report, encodeRegister(name)) ?? 0n
  const aarch32 = hasAArch32(valueOf('ID_AA64PFR0_EL1'))
  return {
    hostClass: classOf(report),
    release: report.host.release,
    origin: report.origin.kind,
    psci: decodePsciVersion(valueOf('KVM_REG_ARM_PSCI_VERSION')),
    midr: hex(valueOf('MIDR_EL1')),
    vcpuFeatures: report.traits.init.supported,
    bitmaps: bitmapsOf(report).map(({ name, mask }) => ({ name: withoutPrefix(name), mask: hex(mask) })),
    workarounds: mitigationsOf(report).map(({ name, value }) => ({
      name: withoutPrefix(name),
      value: hex(value),
    })),
    idRegisters: report.registers.flatMap(({ id, name, value }) => {
      const isShown = isIdRegister(BigInt(id)) && (aarch32 || !isAArch32IdRegister(BigInt(id)))
      return isShown && value !== null ? [{ name, value }] : []
    }),
    guestReads: (report.guestReads ?? []).map(({ name, value }) => ({ name, value })),
    counterFrequency: guestRead(report, CNTFRQ_EL0),
    interruptControllers: interruptControllersOf(report),
    pageSize: pageSizeOf(report),
    ipaLimit: ipaLimitOf(report),
    mte: hasMte(report),
    protectedKvm: isProtectedKvm(report),
    cpuKinds: report.cpus?.kinds.length,
  }
}
