/**
 * What a runtime must be able to do with the package, `smoke.mjs PACKAGE simulator|kernel`: open KVM, make a VM with a vCPU, read and
 * set a register, and run a guest that asks for the version of PSCI. Plain JavaScript: it runs on every runtime there is.
 */
const [entry, which] = process.argv.slice(2)
const { openKvm, simulator } = await import(entry)

const kvm = which === 'kernel' ? openKvm() : openKvm(simulator('linux-6.12-neoverse-n1'))
const vm = kvm.createVm()
const vcpu = vm.createVcpu(0, { features: ['psci-0.2'] })
vcpu.registers.set('KVM_REG_ARM_STD_BMAP', 0n)
if (vcpu.registers.get('KVM_REG_ARM_STD_BMAP') !== 0n) throw new Error('a register does not keep its value')
const { x } = vcpu.hypercall(0x8400_0000)
vcpu.close()
vm.close()
kvm.close()
console.log(`PSCI_VERSION is 0x${x[0].toString(16)}`)
