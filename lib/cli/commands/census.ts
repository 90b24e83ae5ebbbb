import { Command, Option } from 'commander'
import { census, type CensusCall } from '../../probe/census.js'
import { discoveries } from '../../probe/probe.js'
import { type PsciVersion, psciVersions } from '../../hypercalls/index.js'
import { type Election, openKvm } from '../../kvm/index.js'
import { printable } from '../../documents/printable.js'
import { hex } from '../../registers/index.js'
import { censusTable } from '../view/census-table.js'
import { hostOf, simulateOption } from '../host.js'
import { print, printJson, withProgress } from '../output.js'
import { parseElection, refusalOf } from '../vm.js'

interface Flags {
  elect?: Election
  psci?: PsciVersion
  simulate?: string
  json?: boolean
}

/** `kvm-arm64 census`: find out what a guest can really discover. */
export function censusCommand(): Command {
  return new Command('census')
    .option(
      '--elect <services>',
      'services that the guest may discover, separated by commas, or none; without it, those of a fresh VM',
      parseElection,
    )
    .addOption(
      new Option('--psci <version>', 'version of PSCI; without it, the newest that the host has').choices(
        psciVersions,
      ),
    )
    .addOption(simulateOption())
    .option('--json', 'print every call as JSON, not only those that work')
    .addHelpText(
      'after',
      `
A small guest calls every known function and the ids beside it, by hvc and by
smc, and asks SMCCC_ARCH_FEATURES, TRNG_FEATURES, PV_TIME_FEATURES and
PSCI_FEATURES about every function. Like the guest, census cannot distinguish a
call that is answered NOT_SUPPORTED from one that does not exist.

Exit status: 1 if the host does not offer the services or PSCI version that
were asked for, 3 if there is no arm64 KVM.

Examples:
  kvm-arm64 census                              on this host
  kvm-arm64 census --elect pv-time,features     with two services alone
  kvm-arm64 census --simulate linux-6.1-max --psci 0.2
                                                on a simulated host`,
    )
    .action(run)
}

function run({ elect, psci, simulate, json }: Flags): void {
  const { backend, label } = hostOf(simulate)
  using kvm = openKvm(backend)
  const calls = withProgress(`Calling from a guest of ${label}`, (progress) => {
    try {
      return census(kvm, { ...(elect && { elect }), ...(psci && { psci }), progress })
    } catch (error) {
      throw refusalOf(error, kvm, label, psci)
    }
  })
  if (json) printJson(calls.map(toJson))
  else print(foundText(label, calls))
}

/** Function ids and values are `0x…` strings, as everywhere in JSON. */
function toJson(call: CensusCall): object {
  const { functionId, argument, x } = call
  return {
    ...call,
    functionId: hex(functionId),
    argument: hex(argument),
    x: x && x.map(hex),
    exit:
      call.exit &&
      JSON.parse(
        JSON.stringify(call.exit, (_, value: unknown) => (typeof value === 'bigint' ? hex(value) : value)),
      ),
  }
}

function foundText(host: string, calls: readonly CensusCall[]): string {
  const found = discoveries(calls)
  return [
    printable(host),
    '',
    censusTable(found),
    '',
    `  ${found.length} of ${calls.length} calls found something; all others are NOT_SUPPORTED.`,
  ].join('\n')
}
