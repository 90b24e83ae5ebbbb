/**
 * Pseudo-registers of KVM's firmware: coprocessor 0x14 (`KVM_REG_ARM_FW`) and the bitmaps of hypercall services, coprocessor 0x16
 * (`KVM_REG_ARM_FW_FEAT_BMAP`). All have 64 bits. See `Documentation/virt/kvm/arm/fw-pseudo-registers.rst`.
 */
import { arm64Id, coprocessors, sizes } from './id.js'

interface FirmwareEntry<Name extends string = string> {
  id: bigint
  name: Name
  index: number
  description: string
}

function entries<const Name extends string>(
  coproc: number,
  list: readonly (readonly [name: Name, description: string])[],
): readonly FirmwareEntry<Name>[] {
  return list.map(([name, description], index) => ({
    id: arm64Id(sizes.U64, coproc, index),
    name,
    index,
    description,
  }))
}

export const firmwareRegisters = entries(coprocessors.FW, [
  ['KVM_REG_ARM_PSCI_VERSION', 'version of PSCI that the guest reads; one for the whole VM'],
  [
    'KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_1',
    'state of the mitigation of Spectre variant 2 (CVE-2017-5715) on the host',
  ],
  [
    'KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2',
    'state of the mitigation of Spectre variant 4 (CVE-2018-3639) on the host',
  ],
  [
    'KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_3',
    'state of the mitigation of Spectre-BHB (CVE-2022-23960) on the host',
  ],
])

export const bitmapRegisters = entries(coprocessors.FW_FEAT_BMAP, [
  ['KVM_REG_ARM_STD_BMAP', 'standard secure services the guest may discover'],
  ['KVM_REG_ARM_STD_HYP_BMAP', 'standard hypervisor services the guest may discover'],
  ['KVM_REG_ARM_VENDOR_HYP_BMAP', 'vendor hypervisor services the guest may discover, functions 0 to 63'],
  ['KVM_REG_ARM_VENDOR_HYP_BMAP_2', 'vendor hypervisor services the guest may discover, functions 64 to 127'],
])

export type BitmapRegisterName = (typeof bitmapRegisters)[number]['name']
export type FirmwareRegisterName = (typeof firmwareRegisters)[number]['name'] | BitmapRegisterName
