import { capabilityAnswers } from '../report/machine.js'
import {
  capabilities,
  errnos,
  KVM_DIRTY_LOG_INITIALLY_SET,
  KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE,
} from '../uapi.js'
import { enableBitmapBesideRing, enableDirtyRing } from './dirty-ring.js'
import { SimulatorError } from './errors.js'
import type { Host } from './host.js'
import type { VmState } from './state.js'

const KVM_DIRTY_LOG_MANUAL_CAPS = KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE | KVM_DIRTY_LOG_INITIALLY_SET

/**
 * `KVM_ENABLE_CAP` on a VM: returns 0 or `-errno` (`virt/kvm/kvm_main.c:kvm_vm_ioctl_enable_cap_generic`,
 * `arch/arm64/kvm/arm.c:kvm_vm_ioctl_enable_cap`).
 *
 * @throws SimulatorError `ERR_KVM_SIMULATOR_NOT_RECORDED` for memory tagging, if the report has no vCPU of a VM with it
 */
export function enableCapability(
  vm: VmState,
  capability: number,
  flags: number,
  args: readonly bigint[],
): number {
  const { host } = vm
  const [argument = 0n] = args
  const isOffered = (capabilityAnswers(host.report, capability)?.[1] ?? 0) > 0
  if (capability === capabilities.KVM_CAP_DIRTY_LOG_RING_ACQ_REL) return enableDirtyRing(vm, argument)
  if (flags !== 0) return -errnos.EINVAL
  switch (capability) {
    case capabilities.KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2: {
      const allowed = argument & KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE ? KVM_DIRTY_LOG_MANUAL_CAPS : 0n
      if (!isOffered || (argument & ~allowed) !== 0n) return -errnos.EINVAL
      vm.manualDirtyLog = argument
      return 0
    }
    case capabilities.KVM_CAP_DIRTY_LOG_RING_WITH_BITMAP:
      return enableBitmapBesideRing(vm)
    case capabilities.KVM_CAP_HALT_POLL:
      return accept(isOffered && argument <= 0xffff_ffffn)
    case capabilities.KVM_CAP_ARM_NISV_TO_USER:
    case capabilities.KVM_CAP_ARM_SEA_TO_USER:
      return accept(isOffered)
    case capabilities.KVM_CAP_ARM_SYSTEM_SUSPEND:
      if (!isOffered) return -errnos.EINVAL
      vm.systemSuspend = true
      return 0
    case capabilities.KVM_CAP_ARM_MTE:
      if (!isOffered || vm.vcpus.size > 0) return -errnos.EINVAL
      refuseUnrecordedMte(host)
      vm.mte = true
      return 0
    case capabilities.KVM_CAP_ARM_EAGER_SPLIT_CHUNK_SIZE: {
      const sizes = BigInt(host.capability('KVM_CAP_ARM_SUPPORTED_BLOCK_SIZES'))
      const isBlockSize =
        argument === 0n || ((argument & (argument - 1n)) === 0n && (argument & sizes) !== 0n)
      if (sizes <= 0n || vm.memorySlots.size > 0 || !isBlockSize) return -errnos.EINVAL
      vm.eagerSplitChunkSize = argument
      return 0
    }
    case capabilities.KVM_CAP_ARM_WRITABLE_IMP_ID_REGS:
      if (!isOffered || vm.vcpus.size > 0) return -errnos.EINVAL
      vm.writableImplementationIds = true
      return 0
    default:
      return -errnos.EINVAL
  }
}

function refuseUnrecordedMte({ report }: Host): void {
  if (report.configurations.some(({ mte }) => mte)) return
  throw new SimulatorError(
    'ERR_KVM_SIMULATOR_NOT_RECORDED',
    `The report of ${report.host.release} does not record a VM with memory tagging (KVM_CAP_ARM_MTE). Probe the host again.`,
  )
}

function accept(isAccepted: boolean): number {
  return isAccepted ? 0 : -errnos.EINVAL
}

/** `KVM_CHECK_EXTENSION` on a VM. */
export function checkVmExtension(vm: VmState, capability: number): number {
  return capability === capabilities.KVM_CAP_ARM_EAGER_SPLIT_CHUNK_SIZE && vm.eagerSplitChunkSize !== null
    ? Number(vm.eagerSplitChunkSize)
    : vm.host.checkExtension('vm', capability)
}
