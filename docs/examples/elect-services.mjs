// Chooses which hypercall services the guest can discover, and freezes the choice.
// `node elect-services.mjs real` opens /dev/kvm of this machine; without the word a simulated host answers.
import { openKvm, simulator } from 'kvm-arm64'

const kvm = process.argv[2] === 'real' ? openKvm() : openKvm(simulator('linux-6.12-neoverse-n1'))
const vm = kvm.createVm()
const vcpu = vm.createVcpu(0, { features: ['psci-0.2'] })

// A fresh VM shows its guest every service that the host supports.
console.log('supported:', vm.services.supported.vendorHyp.join(' ')) // supported: features ptp

// Elect fewer: a group that is not named keeps what it has.
vm.services.elect({ vendorHyp: ['features'] })
console.log('bitmap:', vcpu.registers.get('KVM_REG_ARM_VENDOR_HYP_BMAP')) // bitmap: 1n

// The first run freezes the bitmaps. freeze() starts the VM without executing a guest instruction.
vcpu.freeze()
try {
  vm.services.elect({ vendorHyp: ['features', 'ptp'] })
} catch (error) {
  console.log(error.code, error.register.name) // EBUSY KVM_REG_ARM_VENDOR_HYP_BMAP
}

vm.close()
kvm.close()
