// Reads everything a host's KVM offers its guests, as a report.
// `node probe-host.mjs real` probes this machine; without the word a simulated host.
import { openKvm, probe, simulator } from 'kvm-arm64'

const kvm = process.argv[2] === 'real' ? openKvm() : openKvm(simulator('linux-6.1-neoverse-n1'))
const report = probe(kvm)
kvm.close()

console.log(report.format) // kvm-arm64/report
const pfr0 = report.registers.find(({ name }) => name === 'ID_AA64PFR0_EL1')
console.log(pfr0.id) // 0x603000000013c020
