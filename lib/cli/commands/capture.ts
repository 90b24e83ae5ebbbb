import { Command } from 'commander'
import { formatDocument } from '../../documents/write.js'
import { hostOf, simulateOption } from '../host.js'
import { checkOutput, writeOutput } from '../output.js'
import { wholeNumber } from '../number.js'
import { openKvm } from '../../kvm/index.js'
import { factsOfKvm } from '../../migration/vmm/facts.js'
import { type VmmRules, vmOn } from '../../migration/vmm/rules.js'
import { chosenFeatures, freshState, type VmFlags, vmmOption, vmOptions } from '../vm.js'

interface Flags extends VmFlags {
  vmm: VmmRules
  output?: string
  simulate?: string
  vcpus: number
}

/** `kvm-arm64 capture`: capture the state of a VM as a host makes it. */
export function captureCommand(): Command {
  const command = new Command('capture')
    .option('-o, --output <file>', 'write to a file instead of standard output')
    .addOption(simulateOption())
    .addOption(vmmOption('the VMM whose VM it is'))
    .option('--vcpus <n>', 'number of vCPUs of the VM', wholeNumber(1, 9999), 1)
  for (const option of vmOptions()) command.addOption(option)
  return command
    .addHelpText(
      'after',
      `
The state holds every register of every vCPU, as a program that moves VMs would
save it. To capture a running VM, call capture() of this package in the program
that runs it.

Exit status: 1 if the host cannot make such a VM, 3 if there is no arm64 KVM.

Examples:
  kvm-arm64 capture -o vm.json              capture a VM of this host
  kvm-arm64 capture --elect pv-time --psci 1.0 -o vm.json
                                            of a guest that may discover less
  kvm-arm64 capture --simulate linux-7.2-max --features sve
  kvm-arm64 capture --simulate linux-7.2-max --vmm qemu
                                            with the features QEMU would use`,
    )
    .action(run)
}

function run({ output, simulate, vmm, vcpus, ...vm }: Flags): void {
  checkOutput(output)
  const host = hostOf(simulate)
  using kvm = openKvm(host.backend)
  const { features } = vmOn(vmm, factsOfKvm(kvm), chosenFeatures(vm))
  writeOutput(output, formatDocument(freshState(host, { ...vm, features }, vcpus)))
}
