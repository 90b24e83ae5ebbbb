import { Command, Option } from 'commander'
import { openKvm } from '../../kvm/index.js'
import {
  encodeRegister,
  hex,
  isFeatureIdRegister,
  registerFields,
  registerName,
} from '../../registers/index.js'
import { configurationOf, registersOf } from '../../report/registers.js'
import type { Report } from '../../report/report.js'
import {
  acceptedNibbles,
  isIgnored,
  type NibbleSets,
  sixteen,
  type WriteRule,
} from '../../report/write-rule.js'
import { formatDocument } from '../../documents/write.js'
import { simulator } from '../../hosts/index.js'
import type { VcpuFeature } from '../../uapi.js'
import { explainRegister, explanation } from '../view/explain.js'
import { censusTable } from '../view/census-table.js'
import { CommandError, exitStatus } from '../exit.js'
import { reportOf } from '../host.js'
import { print, printJson, writeOutput } from '../output.js'
import { type ListedRegister, listRegisters, registerTable } from '../view/register-list.js'
import { offeredServices, servicesText } from '../view/services.js'
import { summary } from '../view/summary.js'
import { properties } from '../view/table.js'
import { traitsText } from '../view/traits.js'
import { parseFeatures } from '../vm.js'

interface Flags {
  register?: string
  registers?: boolean
  services?: boolean
  traits?: boolean
  census?: boolean
  features?: VcpuFeature[]
  json?: boolean
}

/** `kvm-arm64 show`: show the content of a report. */
export function showCommand(): Command {
  const views = ['register', 'registers', 'services', 'traits', 'census']
  const view = (flags: string, name: string, description: string) =>
    new Option(flags, description).conflicts(views.filter((other) => other !== name))
  return new Command('show')
    .argument('<report>', 'a file written by `kvm-arm64 probe -o`, or a name of `kvm-arm64 hosts`')
    .addOption(
      view(
        '--register <register>',
        'register',
        'show one register: its value, its fields, which values it accepts',
      ),
    )
    .addOption(view('--registers', 'registers', 'list every register with its value'))
    .addOption(view('--services', 'services', 'list hypercall services, their bits and their functions'))
    .addOption(
      view(
        '--census',
        'census',
        'list what a guest of a fresh VM discovered (needs a report of `probe --census`)',
      ),
    )
    .addOption(view('--traits', 'traits', 'list what experiments found that no register shows'))
    .addOption(
      new Option(
        '--features <features>',
        'vCPU features of the registers shown, beside psci-0.2, separated by commas',
      )
        .argParser(parseFeatures)
        .default(['psci-0.2'], 'psci-0.2')
        .conflicts(['services', 'traits', 'census']),
    )
    .option('--json', 'print JSON; without another option the report itself')
    .addHelpText(
      'after',
      `
REGISTER is a name, with or without the prefix KVM_REG_ARM_, or an id.

Exit status: 1 if the report holds no census, or the host has no such register
or no vCPU with --features.

Examples:
  kvm-arm64 show host.json
  kvm-arm64 show host.json --register STD_BMAP
  kvm-arm64 show linux-7.2-max --registers --features psci-0.2,sve
  kvm-arm64 show linux-5.10-cortex-a57 --traits --json`,
    )
    .action((report: string, flags: Flags, command: Command) => {
      refuseFeatures(flags, command)
      run(report, flags)
    })
}

function refuseFeatures({ register, registers }: Flags, command: Command): void {
  if (register !== undefined || registers || command.getOptionValueSource('features') === 'default') return
  throw new CommandError(
    '--features chooses registers: --registers or --register NAME shows them',
    exitStatus.usage,
  )
}

function run(
  hostOrFile: string,
  { register, registers, services, traits, census, features, json }: Flags,
): void {
  const report = reportOf(hostOrFile)
  if (services) {
    if (json) printJson(offeredServices(report))
    else print(servicesText(report))
  } else if (traits) {
    if (json) printJson(report.traits)
    else print(traitsText(report))
  } else if (census) {
    const found = censusOf(hostOrFile, report)
    if (json) printJson(found)
    else print(censusTable(found))
  } else if (register !== undefined) {
    showRegister(hostOrFile, report, register, features!, json ?? false)
  } else if (registers) {
    const listed = listedRegisters(report, features!)
    if (json) printJson(listed)
    else print(registerTable(listed))
  } else if (json) {
    writeOutput(undefined, formatDocument(report))
  } else {
    print(summary(report, hostOrFile))
  }
}

function censusOf(host: string, { census }: Report): NonNullable<Report['census']> {
  if (census !== undefined) return census
  throw new CommandError(
    `${host} holds no census: add one with kvm-arm64 probe --census -o FILE, or predict it with kvm-arm64 census --simulate ${host}`,
    exitStatus.negative,
  )
}

/** A simulator of the host lists them: only the simulator computes how features change a register list. */
function listedRegisters(report: Report, features: readonly VcpuFeature[]): ListedRegister[] {
  using kvm = openKvm(simulator(report))
  return listRegisters(kvm, report, features)
}

function showRegister(
  host: string,
  report: Report,
  nameOrId: string,
  features: readonly VcpuFeature[],
  json: boolean,
): void {
  const id = encodeRegister(nameOrId)
  const found = listedRegisters(report, features).find((register) => BigInt(register.id) === id)
  if (found === undefined) {
    throw new CommandError(
      `${host}: a vCPU with ${features.join(', ')} has no register ${registerName(id)} (${hex(id)})`,
      exitStatus.negative,
    )
  }
  const explained = explainRegister(id, found.value === null ? undefined : BigInt(found.value))
  const writes = writesOf(report, found, features)
  if (json) printJson({ ...explained, writes })
  else print(`${explanation(explained)}\n${properties(Object.entries(writes))}`.trimEnd())
}

/** Returns what may be written before the first run, by field name if the rule is by field. */
function writesOf(
  report: Report,
  { id }: ListedRegister,
  features: readonly VcpuFeature[],
): Record<string, string> {
  const configuration = configurationOf(report, features)
  const rows = registersOf(report, configuration && 'removed' in configuration ? configuration : null)
  const row = rows.find((entry) => entry.id === id)
  return {
    ...(row?.write === undefined || row.value === null
      ? {}
      : inWords(row.write, BigInt(id), BigInt(row.value))),
    ...(row?.untried && { 'not known': `what bits ${row.untried.join(', ')} accept` }),
  }
}

function inWords(write: WriteRule, id: bigint, fresh: bigint): Record<string, string> {
  switch (write.rule) {
    case 'fixed':
      return { 'any other value': write.errno }
    case 'refused':
      return { 'any value': write.errno }
    case 'bits':
      return isIgnored(write) ? { 'any value': 'is accepted and ignored' } : { keeps: `bits ${write.bits}` }
    case 'sets':
      return { 'bits written as 1': `are set, of ${write.bits}` }
    case 'clears':
      return { 'bits written as 1': `are cleared, of ${write.bits}` }
    case 'subset':
      return { accepts: `any bits of ${write.of}` }
    case 'values':
      return { accepts: write.accepts.join(' ') }
    case 'checked':
      return { accepts: `${write.accepts.join(' ')}, and remembers none` }
    default:
      return isFeatureIdRegister(id)
        ? acceptedByField(acceptedNibbles(write, fresh), id)
        : Object.fromEntries(
            Object.entries(write.accepts).map(([bits, values]) => [`bits ${bits} accept`, values]),
          )
  }
}

function acceptedByField(sets: NibbleSets, id: bigint): Record<string, string> {
  const fields = registerFields(id).filter(({ lsb, width }) => width === 4 && lsb % 4 === 0)
  const accepted = fields.map(({ name, lsb, signed }): [string, number[]] => [
    `${name} accepts`,
    sixteen
      .filter((value) => (sets[lsb / 4]! >> value) & 1)
      .map((value) => (signed && value > 7 ? value - 16 : value)),
  ])
  return Object.fromEntries(
    accepted.filter(([, values]) => values.length > 1).map(([field, values]) => [field, values.join(' ')]),
  )
}
