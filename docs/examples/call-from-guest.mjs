// Makes a hypercall from inside a guest, to see what the guest really discovers.
// `node call-from-guest.mjs real` uses /dev/kvm of this machine; without the word a simulated host answers.
import { openKvm, simulator } from 'kvm-arm64'
import { functionIds } from 'kvm-arm64/hypercalls'

const kvm = process.argv[2] === 'real' ? openKvm() : openKvm(simulator('linux-6.12-neoverse-n1'))

const shown = kvm.createVm()
const before = shown.createVcpu(0, { features: ['psci-0.2'] }).hypercall(functionIds.TRNG_VERSION)
console.log('TRNG_VERSION:', before.x[0]) // TRNG_VERSION: 65536n
shown.close()

// The same call in a VM whose guest must not find the service.
const hidden = kvm.createVm()
const vcpu = hidden.createVcpu(0, { features: ['psci-0.2'] })
hidden.services.elect({ std: [] })
const after = vcpu.hypercall(functionIds.TRNG_VERSION)
console.log('not elected:', BigInt.asIntN(64, after.x[0])) // not elected: -1n
hidden.close()
kvm.close()
