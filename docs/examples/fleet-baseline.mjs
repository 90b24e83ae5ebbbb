// Computes the greatest configuration that every host of a fleet can provide, and applies it to a VM.
import { builtInReport, openKvm, simulator } from 'kvm-arm64'
import { apply, computeBaseline } from 'kvm-arm64/fleet'

const hosts = ['linux-6.12-neoverse-n1', 'linux-7.2-neoverse-n1']
const common = computeBaseline(hosts.map((name) => ({ name, report: builtInReport(name) })))
console.log(common.psciVersion) // 0x10001

// The VM that apply() configures is the caller's: add memory, load a guest, run it.
const kvm = openKvm(simulator('linux-7.2-neoverse-n1'))
const { vm, refused } = apply(kvm, common)
console.log('refused:', refused.length) // refused: 0
vm.close()
kvm.close()
