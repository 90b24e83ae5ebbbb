/**
 * The compiler refuses what an editor should have completed. Nothing here runs: `tsc` fails where a line marked below compiles.
 */
import { builtInReport, openKvm, simulator } from '../../lib/index.js'
import { encodeRegister, type RegisterName } from '../../lib/doors/registers.js'
import { vmmRules } from '../../lib/doors/migration.js'

const kvm = openKvm(simulator('linux-6.12-neoverse-n1'))
const vm = kvm.createVm()
const vcpu = vm.createVcpu(0, { features: ['psci-0.2'] })
const exit = vcpu.runSync({ timeout: 5 })

// @ts-expect-error -- no such host
simulator('linux-6.12-neoverse-nl')
// @ts-expect-error -- no such host
builtInReport('linux-6.12')
// @ts-expect-error -- misspelt option
kvm.createVm({ ipasize: 40 })
// @ts-expect-error -- no such feature
vm.createVcpu(0, { features: ['psci-0.3'] })
// @ts-expect-error -- misspelt register
vcpu.registers.get('ID_AA64PFRO_EL1')
// @ts-expect-error -- there are 31 general registers
vcpu.registers.get('x31')
// @ts-expect-error -- misspelt register
encodeRegister('KVM_REG_ARM_STD_BITMAP')
// @ts-expect-error -- a value is a bigint
vcpu.registers.set('x0', 5)
// @ts-expect-error -- misspelt service
vm.services.elect({ vendorHyp: ['feature'] })
// @ts-expect-error -- misspelt group
vm.services.elect({ vendorHype: ['features'] })
// @ts-expect-error -- a function is a number
vcpu.hypercall('PSCI_VERSION')
// @ts-expect-error -- an argument is a bigint
vcpu.hypercall(1, [2])
// @ts-expect-error -- milliseconds are a number
vcpu.runSync({ timeout: '5' })
// @ts-expect-error -- no such VMM
vmmRules('qemu@12')
// @ts-expect-error -- no such action
vm.filterCalls({ base: 0, count: 1, action: 'deny!' })
// @ts-expect-error -- no such capability
kvm.checkExtension('KVM_CAP_FOO')
// @ts-expect-error -- no such exit
if (exit.reason === 'mmioo') vm.close()

// What is only known at run time is looked up then.
declare const text: string
simulator(text)
simulator(`linux-${text}-max`)
vmmRules(text)
encodeRegister(text)
vcpu.registers.get(text)

// Names of every space, as the architecture and the kernel spell them.
export const names: readonly RegisterName[] = [
  'x30',
  'v31',
  'SP_EL0',
  'ELR_EL1',
  'z31',
  'p15[1]',
  'ffr',
  'KVM_REG_ARM64_SVE_VLS',
  'KVM_REG_ARM_VENDOR_HYP_BMAP_2',
  'STD_BMAP',
  'PSCI_VERSION',
  'KVM_REG_ARM_TIMER_CNT',
  'CNTV_CVAL_EL0',
  'DBGBVR15_EL1',
  'PMEVTYPER30_EL0',
  'ID_AA64MMFR4_EL1',
  'CCSIDR_EL1[2]',
  'S3_0_C0_C4_3',
  '0x6030000000160000',
]
