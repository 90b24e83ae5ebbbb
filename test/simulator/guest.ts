/** A simulated VM whose vCPUs make calls by the stub guest. */
import type { Conduit, VcpuFd, VmFd } from '../../lib/backend.js'
import { callFromGuest, mapStub } from '../../lib/kvm/guest-call.js'
import { decodeExit, type Exit } from '../../lib/kvm/exits.js'
import type { Report } from '../../lib/report/report.js'
import type { VcpuFeature } from '../../lib/uapi.js'
import { made, systemOf, outcomeName, vcpuOf } from './fixture.js'

export interface Guest {
  vm: VmFd
  vcpus: VcpuFd[]
}

/** One vCPU for each set of features; `prepare` comes before the first. */
export function guestOf(
  report: Report,
  features: readonly (readonly VcpuFeature[])[] = [['psci-0.2']],
  prepare: (vm: VmFd) => void = () => undefined,
): Guest {
  const system = systemOf(report)
  const vm = made(system.createVm(0n))
  prepare(vm)
  made(mapStub(system, vm))
  return { vm, vcpus: features.map((set, id) => vcpuOf(vm, id, set)) }
}

/** Milliseconds a call that does not come back is waited for. */
const WAIT = 5

/** x0 to x3 in hexadecimal, `0xffff_ffff_ffff_ffff` as -1 and its like; with the exit before them where there was one. */
export function call(vcpu: VcpuFd, conduit: Conduit, ...args: bigint[]): string {
  const found = callFromGuest(vcpu, { conduit, args }, () => vcpu.runSync(WAIT))
  if (typeof found === 'number') return String(outcomeName(found))
  const words = found.x
    .map((word) => (word >= 1n << 63n ? `${word - (1n << 64n)}` : word.toString(16)))
    .join(' ')
  if (found.returned) return words
  return `${found.outcome < 0 ? String(outcomeName(found.outcome)) : nameOf(decodeExit(new DataView(vcpu.runPage)))}: ${words}`
}

function nameOf(exit: Exit): string {
  if (exit.reason === 'system-event') return `${exit.event}${exit.flags === 0n ? '' : ` flags ${exit.flags}`}`
  if (exit.reason === 'hypercall') return `${exit.conduit} ${exit.functionId.toString(16)}`
  return exit.reason
}
