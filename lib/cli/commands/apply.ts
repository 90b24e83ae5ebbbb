import { Command } from 'commander'
import { apply, type Applied, type AppliedRegister } from '../../fleet/baseline/apply.js'
import { type Baseline, readBaseline } from '../../fleet/baseline/format.js'
import { type Kvm, KvmError, openKvm } from '../../kvm/index.js'
import { hex } from '../../registers/index.js'
import { printable } from '../../documents/printable.js'
import { CommandError, exitStatus } from '../exit.js'
import { hostOf, refuseUnknown, simulateOption } from '../host.js'
import { paint, print, printJson } from '../output.js'
import { table } from '../view/table.js'
import { wrap } from '../view/text.js'

/** `kvm-arm64 apply`: apply a baseline to a VM made for it. */
export function applyCommand(): Command {
  return new Command('apply')
    .argument('<baseline>', 'a file of `kvm-arm64 baseline`')
    .addOption(simulateOption())
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      `
\`apply\` closes the VM again: it shows in advance whether a host can provide the
baseline. A script configures a VM of its own with apply() of this package.
Registers that some hosts lack according to the baseline are listed, and do not
count as refused.

Exit status: 1 if a bit was refused.

Examples:
  kvm-arm64 apply fleet.json
  kvm-arm64 apply fleet.json --simulate linux-6.1-max`,
    )
    .action(run)
}

function run(file: string, { simulate, json }: { simulate?: string; json?: boolean }): void {
  const wanted = readBaseline(file)
  const host = hostOf(simulate)
  const { backend, label } = host
  refuseUnknown(host, wanted.features)
  using kvm = openKvm(backend)
  const { registers, refused } = applied(kvm, wanted)
  const absent = registers.filter(({ declared }) => declared)
  if (json) {
    printJson({
      applied: registers.length - refused.length - absent.length,
      refused: refused.map(jsonOf),
      absent: absent.map(jsonOf),
    })
  } else {
    const answer =
      refused.length === 0
        ? paint('green', `${registers.length - absent.length} registers are as the baseline wants them`)
        : paint(
            'red',
            `${refused.length} of ${registers.length} registers are not as the baseline wants them`,
          )
    print(wrap(`${answer} on ${printable(label)}`, 0, 2))
    if (refused.length > 0) {
      const rows = refused.map(({ name, value, mask, reads, refused: bits, fields, errno }) => [
        name,
        hex(value & mask),
        reads === null ? 'absent' : hex(reads & mask),
        hex(bits),
        errno ?? '',
        fields.join(' '),
      ])
      print(table(['register', 'wanted', 'reads', 'refused bits', 'errno', 'fields'], rows))
    }
    if (absent.length > 0) {
      print(wrap(`absent here, as the baseline says: ${absent.map(({ name }) => name).join(' ')}`, 0, 2))
    }
  }
  if (refused.length > 0) process.exitCode = exitStatus.negative
}

function applied(kvm: Kvm, wanted: Baseline): Applied {
  try {
    const { vm, registers, refused } = apply(kvm, wanted)
    vm.close()
    return { registers, refused }
  } catch (error) {
    if (!(error instanceof KvmError)) throw error
    throw new CommandError(`no VM of this baseline can be made here: ${error.message}`, exitStatus.negative)
  }
}

function jsonOf({ id, name, value, mask, reads, refused, fields, errno }: AppliedRegister): object {
  return {
    id: hex(id),
    name,
    value: hex(value),
    mask: hex(mask),
    reads: reads === null ? null : hex(reads),
    refused: hex(refused),
    fields,
    errno,
  }
}
