/** What a host gives every VM beyond the registers of its vCPUs. */
import type { Cpus, SystemFd, VcpuFd, VmFd } from '../backend.js'
import { kvmError } from '../kvm/errors.js'
import { readFromGuest } from '../kvm/guest-call.js'
import { hex, registerName } from '../registers/index.js'
import { CAPABILITY_NUMBERS, guestReadIds, NO_IPA_SIZE } from '../report/machine.js'
import { asRanges, isInRanges } from '../report/ranges.js'
import type { Report } from '../report/report.js'
import { capabilities, KVM_VM_TYPE_ARM_PROTECTED } from '../uapi.js'
import { onStub, PATIENCE } from './guest-calls.js'

/** Asks for every capability that has no name here. Keeps the answers other than 0. */
export function probeOtherCapabilities(kvm: SystemFd, vm: VmFd): Report['otherCapabilities'] {
  return ifRecorded(() => {
    const named = new Set<number>(Object.values(capabilities))
    const others = Array.from({ length: CAPABILITY_NUMBERS }, (_, number) => number)
      .filter((number) => !named.has(number))
      .map((number): [string, [number, number]] => [
        String(number),
        [kvm.checkExtension(number), vm.checkExtension(number)],
      ])
    return Object.fromEntries(others.filter(([, answers]) => answers.some((answer) => answer !== 0)))
  })
}

/** Makes VMs of every size of the guest physical address space. */
export function probeVmTypes(kvm: SystemFd): Report['vmTypes'] {
  const isAccepted = (type: bigint): boolean => {
    const vm = kvm.createVm(type)
    if (typeof vm === 'number') return false
    vm.close()
    return true
  }
  return ifRecorded(() => {
    const sizesTried = [...Array.from({ length: 65 }, (_, bits) => bits), NO_IPA_SIZE]
    const accepted = sizesTried.filter((bits) => isAccepted(BigInt(bits)))
    const ipaSizes = asRanges(accepted)
    if (accepted.includes(NO_IPA_SIZE)) return { ipaSizes }
    return { ipaSizes, protected: isAccepted(KVM_VM_TYPE_ARM_PROTECTED) }
  })
}

/** Lets a guest read registers of the CPU, by its own instructions. */
export function probeGuestReads(kvm: SystemFd, type: bigint): Report['guestReads'] {
  return ifRecorded(() =>
    onStub(kvm, type, (vcpu) =>
      readRegisters(vcpu).map((value, index) => {
        const id = guestReadIds[index]!
        return { id: hex(id), name: registerName(id), value: hex(value) }
      }),
    ),
  )
}

/** Returns what a guest reads from the registers of `guestReadIds`, on a vCPU of a VM that has the stub guest. */
function readRegisters(vcpu: VcpuFd): readonly bigint[] {
  const found = readFromGuest(vcpu, (fd) => fd.runSync(PATIENCE))
  if (typeof found !== 'number') return found
  throw kvmError(found, {
    syscall: 'KVM_RUN',
    remedy: 'A guest read registers of the CPU and did not come back',
  })
}

/** Describes the machine's CPUs to a probe that runs on one of them. */
export function probeCpus(cpus: Cpus, cpu: number): Report['cpus'] {
  const kinds = cpus.kinds()
  const probed = kinds?.findIndex(({ cpus: list }) => isInRanges(list, cpu)) ?? -1
  if (kinds === undefined || probed < 0) return undefined
  return { probed, kinds }
}

/** Runs an experiment; undefined if the simulated host's report does not record what it finds out. */
function ifRecorded<T>(experiment: () => T): T | undefined {
  try {
    return experiment()
  } catch (error) {
    if ((error as { code?: unknown }).code === 'ERR_KVM_SIMULATOR_NOT_RECORDED') return undefined
    throw error
  }
}
