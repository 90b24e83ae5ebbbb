/** What of a machine decides what a guest finds there and no register of a vCPU carries. */
import * as v from 'valibot'
import { int32, uint32 } from '../documents/entries.js'
import { unobserved } from '../kvm/guest-call.js'
import { type Kvm, KvmError } from '../kvm/index.js'
import { probeGuestReads } from '../probe/machine.js'
import { smallestVmType } from '../probe/rig.js'
import { midrName } from '../report/cpu.js'
import { CNTFRQ_EL0 } from '../report/machine.js'
import { cpuKindSchema, guestReadSchema } from '../report/report.js'
import type { Finding, RegisterFinding } from './finding.js'

/** An entry that is absent was not recorded. */
export const machineSchema = v.strictObject({
  /** What a guest reads from registers of the CPU itself. */
  guestReads: v.exactOptional(v.pipe(v.array(guestReadSchema), v.maxLength(100))),
  /** Bytes of a page of the kernel. */
  pageSize: v.exactOptional(uint32),
  /** The most bits of guest physical address space a VM may have. */
  ipaLimit: v.exactOptional(int32),
  /** Online CPUs by kind. */
  cpuKinds: v.exactOptional(v.pipe(v.array(cpuKindSchema), v.maxLength(1000))),
})

export type MachineFacts = v.InferOutput<typeof machineSchema>

const known = new WeakMap<Kvm, MachineFacts>()

/**
 * Returns the facts about the machine of a KVM. The first call makes a scratch VM, in which a guest reads registers; nothing of that
 * gets into a trace.
 */
export function machineOf(kvm: Kvm): MachineFacts {
  const found = known.get(kvm) ?? findOut(kvm)
  // What an accident kept from it may be found out the next time.
  if (found.guestReads !== undefined) known.set(kvm, found)
  return found
}

function findOut(kvm: Kvm): MachineFacts {
  const fd = unobserved(kvm.fd)
  const guestReads = ifPossible(() => probeGuestReads(fd, smallestVmType(fd)))
  const pageSize = pageSizeOf(kvm)
  const ipaLimit = kvm.checkExtension('KVM_CAP_ARM_VM_IPA_SIZE')
  const cpuKinds = kvm.backend.cpus?.kinds()
  return {
    ...(guestReads && { guestReads }),
    ...(pageSize !== undefined && { pageSize }),
    ...(ipaLimit > 0 && { ipaLimit }),
    ...(cpuKinds && { cpuKinds }),
  }
}

/** A simulation of a host knows what its report says, which may be nothing; a kernel shows it by its mapping of a vCPU. */
function pageSizeOf(kvm: Kvm): number | undefined {
  if (kvm.backend.name === 'simulator') return kvm.backend.pageSize
  return kvm.vcpuMmapSize / (1 + Math.max(0, kvm.checkExtension('KVM_CAP_COALESCED_MMIO')))
}

/** Returns the ticks per second of a machine's counter; undefined if not recorded. */
export function counterFrequencyOf({ guestReads }: MachineFacts): bigint | undefined {
  const value = guestReads?.find(({ id }) => BigInt(id) === CNTFRQ_EL0)?.value
  return value === undefined ? undefined : BigInt(value)
}

/**
 * Compares two machines by what a guest finds there, beside the counter's frequency.
 * @param carried registers of the state, which are judged as such
 */
export function compareMachines(
  source: MachineFacts,
  destination: MachineFacts,
  carried: readonly { id: string }[],
): Finding[] {
  const findings: Finding[] = differentReads(source, destination).filter(
    ({ register }) => !carried.some(({ id }) => id === register.id),
  )
  if (isLess(source.pageSize, destination.pageSize)) {
    const pages = { source: source.pageSize!, destination: destination.pageSize! }
    findings.push({ code: 'page-size-larger', ...notice(), ...pages })
  }
  if (isLess(destination.ipaLimit, source.ipaLimit)) {
    const limits = { source: source.ipaLimit!, destination: destination.ipaLimit! }
    findings.push({ code: 'address-space-smaller', ...notice(), ...limits })
  }
  for (const [on, { cpuKinds = [] }] of [
    ['source', source] as const,
    ['destination', destination] as const,
  ]) {
    if (cpuKinds.length < 2) continue
    const kinds = cpuKinds.map(({ midr, cpus }) => `${midrName(BigInt(midr))} (CPU ${cpus})`)
    findings.push({ code: 'several-cpu-kinds', ...notice(), on, kinds })
  }
  return findings
}

function notice(): Pick<Finding, 'severity' | 'stops' | 'vcpus'> {
  return { severity: 'notice', stops: false, vcpus: [] }
}

function broken(): Pick<RegisterFinding, 'severity' | 'stops' | 'vcpus'> {
  return { severity: 'guest-broken', stops: false, vcpus: [] }
}

function differentReads(source: MachineFacts, destination: MachineFacts): RegisterFinding[] {
  const there = new Map(destination.guestReads?.map(({ id, value }) => [id, value]))
  return (source.guestReads ?? []).flatMap(({ id, name, value }): RegisterFinding[] => {
    const other = there.get(id)
    if (other === undefined || other === value || BigInt(id) === CNTFRQ_EL0) return []
    return [
      { code: 'guest-read-differs', ...broken(), register: { id, name }, source: value, destination: other },
    ]
  })
}

function isLess(one: number | undefined, other: number | undefined): boolean {
  return one !== undefined && other !== undefined && one < other
}

/** What a machine short of memory or descriptors cannot find out is not recorded. */
function ifPossible<T>(experiment: () => T): T | undefined {
  try {
    return experiment()
  } catch (error) {
    if (error instanceof KvmError) return undefined
    throw error
  }
}
