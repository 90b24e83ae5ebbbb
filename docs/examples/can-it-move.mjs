// Predicts whether a VM can move from a host with Linux 7.2 to one with Linux 6.12.
import { openKvm, simulator } from 'kvm-arm64'
import { captureHost, verdict, vmmRules } from 'kvm-arm64/migration'

const source = openKvm(simulator('linux-7.2-neoverse-n1'))
const destination = openKvm(simulator('linux-6.12-neoverse-n1'))

// The state of a fresh VM, as the source makes it.
const state = captureHost(source, { features: ['psci-0.2'] })
const fresh = verdict(state, destination, vmmRules('qemu@11.1'))
console.log('fresh VM:', fresh.possible) // fresh VM: false
for (const { register } of fresh.findings.filter(({ stops }) => stops)) {
  console.log(register.name) // KVM_REG_ARM_PSCI_VERSION
}

// The same VM, created with a PSCI version that both hosts have.
const pinned = captureHost(source, { features: ['psci-0.2'], psci: '1.1' })
console.log('with PSCI 1.1:', verdict(pinned, destination, vmmRules('qemu@11.1')).possible) // with PSCI 1.1: true

source.close()
destination.close()
