/**
 * KVM's answer for an id that is not in a vCPU's list (`arch/arm64/kvm/guest.c:kvm_arm_get_reg`, `kvm_arm_set_reg` and the
 * functions they call). If several things are wrong with the id, the order of the kernel's checks decides.
 */
import { coprocessors, decodeRegister, idParts, sizes } from '../registers/index.js'
import { errnos } from '../uapi.js'
import type { Register, VcpuState } from './state.js'

const { CORE, DEMUX, SYSREG, FW, SVE, FW_FEAT_BMAP } = coprocessors

/** The ones of every kernel. */
const spaces: ReadonlySet<number> = new Set([CORE, DEMUX, SYSREG, FW, SVE])

/** `sizeof(struct kvm_regs) / 4` */
const CORE_WORDS = 0xd8n

/** Returns the register that an id of an unknown space stands for, on a kernel that has such aliases. */
export function aliasedRegister({ vm, file }: VcpuState, id: bigint): Register | undefined {
  const register = file?.everywhere.get(id & 0xffffn)
  if (register === undefined || !isArm64(id) || (id & 0xf000_0000n) !== 0n) return undefined
  const { coproc, size } = idParts(id)
  const isKnown = spaces.has(coproc) || (coproc === FW_FEAT_BMAP && vm.host.hasBitmaps)
  return isKnown || size !== sizes.U64 ? undefined : register
}

/** `KVM_GET_ONE_REG`, and `KVM_SET_ONE_REG` with a readable value: returns `-errno`. */
export function missingRegister(vcpu: VcpuState, id: bigint): number {
  if (!isArm64(id)) return -errnos.EINVAL
  switch (idParts(id).coproc) {
    case CORE:
      return missingCoreRegister(id)
    case SVE:
      return decodeRegister(id).space === 'sve' ? -errnos.ENOENT : -errnos.EINVAL
    default:
      return -errnos.ENOENT
  }
}

/** `KVM_SET_ONE_REG` with an unreadable value: returns `-errno`. */
export function missingRegisterAtNull(vcpu: VcpuState, id: bigint): number {
  if (!isArm64(id)) return -errnos.EINVAL
  const { traits, hasBitmaps } = vcpu.vm.host
  const { coproc, size } = idParts(id)
  if (coproc === FW || (coproc === FW_FEAT_BMAP && hasBitmaps)) {
    return missingOrFault(size === sizes.U64 || !traits.firmwareWidthChecked)
  }
  switch (coproc) {
    case CORE:
    case DEMUX:
    case SVE:
      return missingRegister(vcpu, id)
    case SYSREG:
      return missingOrFault(traits.setReadsValueFirst.systemRegister)
    default:
      return missingOrFault(traits.setReadsValueFirst.unknownSpace)
  }
}

function missingOrFault(readsValueFirst: boolean): number {
  return readsValueFirst ? -errnos.EFAULT : -errnos.ENOENT
}

/** Bits 63:32 without the size are the same in every arm64 id. */
function isArm64(id: bigint): boolean {
  return (id & 0xff0f_ffff_0000_0000n) === 0x6000_0000_0000_0000n
}

function missingCoreRegister(id: bigint): number {
  const { size } = idParts(id)
  // Bits 31:28 are not part of the coprocessor, so the kernel takes them for a large index.
  const index = (id & 0xffff_ffffn) ^ 0x10_0000n
  const words = (1n << BigInt(size)) / 4n
  return index >= CORE_WORDS || index + words >= CORE_WORDS ? -errnos.ENOENT : -errnos.EINVAL
}
