import { Command } from 'commander'
import { builtInHosts, builtInReport } from '../../hosts/index.js'
import { cpuName } from '../../report/cpu.js'
import { hex } from '../../registers/index.js'
import { bitmapsOf } from '../../report/registers.js'
import { print, printJson } from '../output.js'
import { psciVersion } from '../view/summary.js'
import { table } from '../view/table.js'

/** `kvm-arm64 hosts`: list the built-in hosts that can be simulated. */
export function hostsCommand(): Command {
  return new Command('hosts')
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      `
The column "bitmaps" lists, for each bitmap firmware register, the bits that a
VM may set.

Example: kvm-arm64 probe --simulate linux-6.1-cortex-a57`,
    )
    .action(({ json }: { json?: boolean }) => {
      const hosts = builtInHosts().map((name) => {
        const report = builtInReport(name)
        return {
          name,
          release: report.host.release,
          cpu: cpuName(report),
          psci: psciVersion(report),
          bitmaps: Object.fromEntries(
            bitmapsOf(report).map(({ name: register, mask }) => [register, hex(mask)]),
          ),
          registers: report.registers.length,
        }
      })
      if (json) {
        printJson(hosts)
        return
      }
      const rows = hosts.map(({ name, release, cpu, psci, bitmaps, registers }) => [
        name,
        release,
        cpu,
        psci,
        `${registers}`,
        Object.values(bitmaps).join(' ') || 'none',
      ])
      print(table(['host', 'kernel', 'CPU', 'PSCI', 'registers', 'bitmaps'], rows))
    })
}
