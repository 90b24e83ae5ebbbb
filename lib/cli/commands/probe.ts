import { hostname } from 'node:os'
import { setFlagsFromString } from 'node:v8'
import { Command, Option } from 'commander'
import { probe } from '../../probe/probe.js'
import { type Kvm, openKvm } from '../../kvm/index.js'
import { asText } from '../../documents/entries.js'
import { printable } from '../../documents/printable.js'
import { formatDocument } from '../../documents/write.js'
import type { VcpuFeature } from '../../uapi.js'
import { hostRow, rowText } from '../../fleet/summary.js'
import { classOf } from '../../report/digest.js'
import { censusTable } from '../view/census-table.js'
import { CommandError, exitStatus } from '../exit.js'
import { type Host, hostOf, simulateOption } from '../host.js'
import {
  checkOutput,
  isStandardOutput,
  note,
  print,
  refuseTwoDocuments,
  withProgress,
  writeOutput,
} from '../output.js'
import { listRegisters, registerTable } from '../view/register-list.js'
import { summary } from '../view/summary.js'
import { wrap } from '../view/text.js'
import { parseFeatures } from '../vm.js'

/** The host that is probed on a machine without arm64 KVM. */
const DEFAULT_HOST = 'linux-6.12-neoverse-n1'

interface Flags {
  output?: string
  simulate?: string
  backend?: 'kernel' | 'simulator'
  features?: VcpuFeature[]
  census?: boolean
  json?: boolean
  digest?: boolean
  name?: string
}

/** `kvm-arm64 probe`: write a report of everything this host's KVM shows. */
export function probeCommand(): Command {
  return new Command('probe')
    .option('-o, --output <file>', 'write the report to a file (- is standard output)')
    .addOption(simulateOption())
    .addOption(
      new Option(
        '--backend <backend>',
        'which backend to use; without it, KVM where there is arm64 KVM',
      ).choices(['kernel', 'simulator']),
    )
    .option(
      '--features <features>',
      'also list every register of a vCPU with these features beside psci-0.2, separated by commas',
      parseFeatures,
    )
    .option('--census', 'add to the report which hypercalls work in a guest of a fresh VM')
    .option('--json', 'print the report instead of a summary')
    .addOption(
      new Option(
        '--digest',
        'print one line instead of a summary: the class of this host, for `fleet`',
      ).conflicts('json'),
    )
    .option('--name <name>', 'the name of the host in that line; without it, that of the machine')
    .addHelpText(
      'after',
      `
\`probe\` changes nothing on the host. What cannot be read, it finds out on VMs of
its own, whose guests make hypercalls and read four registers. Two probes of one
host differ only in "probedAt". A report holds every set of vCPU features that
the host supports.

A class is named by the digest of its report, so hosts of one class print the
same; \`fleet\` needs a whole report of only one of them.

Without arm64 KVM the summary is that of a simulated host
(${DEFAULT_HOST}), and stderr says so; a report needs --simulate.

Exit status: 1 if the host has no vCPU with --features; 3 if there is no arm64
KVM to use and a report (-o, --json, --digest) or --backend kernel needs it.

Examples:
  kvm-arm64 probe -o host.json               probe this host
  kvm-arm64 probe --features psci-0.2,sve    list the registers of an SVE vCPU
  kvm-arm64 probe --simulate linux-6.1-max   probe a simulated host
  kvm-arm64 probe --digest -o host.json      print its row, write its report
  kvm-arm64 lab run --kernel 6.1 -- kvm-arm64 probe --json > host.json
                                             probe a real kernel under QEMU`,
    )
    .action(run)
}

function run({ output, simulate, backend, features, census, json, digest, name }: Flags): void {
  if (name !== undefined && !digest) throw new CommandError('--name needs --digest', exitStatus.usage)
  if (digest && isStandardOutput(output)) refuseTwoDocuments('-o', output, true)
  // A probe ends before optimised code would repay V8's compile time, a third of the whole run.
  setFlagsFromString('--no-opt')
  checkOutput(output)
  const { kvm, label } = open(simulate, backend, output !== undefined || json === true || digest === true)
  try {
    const report = withProgress(`Probing ${label}`, (progress) =>
      probe(kvm, { census: census ?? false, progress }),
    )
    const registers = features && listRegisters(kvm, report, features)
    const text = formatDocument(report)
    if (output !== undefined) writeOutput(output, text)
    if (digest) {
      const called = asText(name ?? (kvm.backend.name === 'kernel' ? hostname() : (simulate ?? DEFAULT_HOST)))
      writeOutput(undefined, `${rowText(hostRow(called, classOf(report), report))}\n`)
      return
    }
    if (isStandardOutput(output)) return
    if (json) {
      writeOutput(undefined, text)
      return
    }
    print(summary(report, label))
    if (report.census && output === undefined) print(`\n${censusTable(report.census)}`)
    if (registers) print(`\n${registerTable(registers)}`)
    else
      print(
        `\n${whereToLook(output ?? simulate ?? (kvm.backend.name === 'simulator' ? DEFAULT_HOST : undefined))}`,
      )
  } finally {
    kvm.close()
  }
}

/** @param keeps whether the report is kept; a simulated host that nobody requested would then pass for this machine */
function open(
  simulate: string | undefined,
  backend: Flags['backend'],
  keeps: boolean,
): { kvm: Kvm; label: string } {
  if (simulate !== undefined || backend === 'simulator') {
    if (backend === 'kernel') {
      throw new CommandError('--simulate and --backend kernel exclude each other', exitStatus.usage)
    }
    return opened(hostOf(simulate ?? DEFAULT_HOST))
  }
  try {
    return opened(hostOf())
  } catch (error) {
    const reason = noKvm[(error as { code?: string }).code ?? '']
    if (backend === 'kernel' || reason === undefined) throw error
    if (keeps) {
      throw new CommandError(
        `no arm64 KVM here (${reason}), so there is no report of this machine. For one of a simulated host add ` +
          `--simulate ${DEFAULT_HOST}; for one of a real arm64 kernel: kvm-arm64 lab run -- kvm-arm64 probe --json`,
        exitStatus.machine,
      )
    }
    note(`no arm64 KVM here (${reason}): probing the simulated host ${DEFAULT_HOST} instead`)
    note(
      'to probe a real arm64 kernel: kvm-arm64 lab run -- kvm-arm64 probe; to fail here instead: --backend kernel',
    )
    return opened(hostOf(DEFAULT_HOST))
  }
}

function opened({ backend, label }: Host): { kvm: Kvm; label: string } {
  return { kvm: openKvm(backend), label }
}

/** Reasons why a machine has no arm64 KVM, by error code. Any other error needs fixing, not a fallback. */
const noKvm: Readonly<Record<string, string>> = {
  ERR_KVM_WRONG_ARCHITECTURE: `this machine is ${process.arch}`,
  ERR_KVM_NOT_AVAILABLE: 'there is no /dev/kvm that can be opened',
  ERR_KVM_UNSUPPORTED_PLATFORM: `this is ${process.platform}`,
  ERR_KVM_ADDON_MISSING: 'the native addon is not built for this machine',
}

function whereToLook(report: string | undefined): string {
  if (report === undefined)
    return 'Write a report with -o FILE, then see all of it: kvm-arm64 show FILE --registers'
  const views = '--registers (or --services, --traits, --census, --register NAME)'
  return wrap(`See all of it: kvm-arm64 show ${printable(report)} ${views}`, 0, 2)
}
