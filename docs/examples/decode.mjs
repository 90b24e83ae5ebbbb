// Translates register ids and SMCCC function ids to names and back.
import { functionName } from 'kvm-arm64/hypercalls'
import { decodeRegister, encodeRegister, registerFields } from 'kvm-arm64/registers'

console.log(decodeRegister(0x6030000000160002n).name) // KVM_REG_ARM_VENDOR_HYP_BMAP
console.log(`0x${encodeRegister('ID_AA64PFR1_EL1').toString(16)}`) // 0x603000000013c021
console.log(functionName(0x84000050)) // TRNG_VERSION

const field = registerFields(encodeRegister('ID_AA64PFR1_EL1')).find(({ name }) => name === 'SSBS')
console.log(field.lsb, field.width) // 4 4
