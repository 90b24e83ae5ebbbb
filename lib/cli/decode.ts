import Table from 'cli-table3'
import { Command } from 'commander'
import {
  decodeFunctionId,
  decodePsciVersion,
  functionName,
  functionNamed,
  functionOf,
  gateOf,
  type HypercallFunction,
  nearestFunctionNames,
  ownerName,
  serviceBitmapOf,
  servicesInBitmap,
} from '../hypercalls/index.js'
import {
  decodeRegister,
  encodeRegister,
  type Field,
  fieldValue,
  nearestNames,
  type Register,
  registerFields,
  UnknownRegisterError,
} from '../registers/index.js'

const usageError = 2

/** `kvm-arm64 decode`: what a register id, a name or a hypercall's function id stands for. */
export function decodeCommand(): Command {
  return new Command('decode')
    .description('explain register ids, names and hypercall function ids')
    .argument('<what...>', 'ids (0x6030000000160000), names (ID_AA64PFR0_EL1), function ids (0x84000050)')
    .option('--value <hex>', 'also decode this value of the register')
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      `
Numbers of up to 32 bits are function ids of hypercalls, longer ones register ids. Exit status 2 if something is unknown.`,
    )
    .action((arguments_: string[], flags: { value?: string; json?: boolean }, command: Command) => {
      const problems: string[] = []
      const explained = arguments_.flatMap((argument) => {
        try {
          return explain(argument, flags.value, arguments_.length)
        } catch (error) {
          if (!(error instanceof RangeError)) throw error
          problems.push(error.message)
          return []
        }
      })
      if (problems.length > 0) {
        command.error(problems.map((problem) => `decode: ${problem}`).join('\n'), { exitCode: usageError })
      }
      const text =
        flags.json === true ? JSON.stringify(explained, null, 2) : explained.map(asText).join('\n\n')
      command.configureOutput().writeOut?.(`${text}\n`)
    })
}

interface ExplainedField {
  name: string
  bits: string
  signed: boolean
  safe?: string
  values: Record<string, string>
  value?: string
  meaning?: string
}

interface ExplainedService {
  name: string
  bit: number
  kernelName: string
  gated: boolean
  functions: { id: string; name: string }[]
  shown?: boolean
}

interface ExplainedRegister {
  kind: 'register'
  id: string
  name: string
  space: Register['space']
  width: number
  parts: Record<string, number | string>
  description?: string
  value?: string
  meaning?: string
  fields?: ExplainedField[]
  resetValue?: string
  services?: ExplainedService[]
}

interface ExplainedFunction {
  kind: 'function'
  id: string
  name?: string
  description?: string
  parts: ReturnType<typeof decodeFunctionId>
  owner: string
  gate: 'default' | 'denied' | { register: string; id: string; bit: number; service: string }
}

type Explained = ExplainedRegister | ExplainedFunction

function hex(value: bigint | number): string {
  return `0x${value.toString(16)}`
}

/** @throws RangeError naming the argument, when it stands for nothing or the value is not one of it */
function explain(argument: string, value: string | undefined, count: number): Explained[] {
  const found = lookUp(argument)
  if (value === undefined) return found.map((what) => describe(what, undefined))
  if (count > 1) throw new RangeError(`--value belongs to a single register, not to ${count} arguments`)
  const register = found.find((what) => typeof what === 'bigint')
  if (register === undefined) throw new RangeError(`"${argument}" is a hypercall, which has no --value`)
  const { name, width } = decodeRegister(register)
  if (!/^0x[0-9a-f]+$/i.test(value))
    throw new RangeError(`--value "${value}" is no number: 0x and hexadecimal digits`)
  const bits = BigInt(value)
  if (bits >> BigInt(width) !== 0n)
    throw new RangeError(`--value ${value} does not fit the ${width} bits of ${name}`)
  return [describe(register, bits)]
}

/** Registers as ids, functions as numbers. PSCI_VERSION and the workarounds are both. */
function lookUp(argument: string): (bigint | number)[] {
  const text = argument.trim()
  if (/^0x0*[0-9a-f]{1,8}$/i.test(text)) return [Number(text)]
  const hypercall: HypercallFunction | undefined = functionNamed(text)
  try {
    const id = encodeRegister(text)
    return hypercall === undefined ? [id] : [id, hypercall.id]
  } catch (error) {
    if (hypercall !== undefined) return [hypercall.id]
    if (!(error instanceof UnknownRegisterError) || text.toLowerCase().startsWith('0x')) throw error
    const nearest = nearestNames(text, [...error.nearest, ...nearestFunctionNames(text)], (name) =>
      name.replace(/^KVM_REG_ARM_/, ''),
    )
    const hint = nearest.length === 0 ? '' : `; did you mean ${nearest.join(', ')}?`
    throw new RangeError(`No arm64 register or hypercall is called "${argument}"${hint}`, { cause: error })
  }
}

function describe(what: bigint | number, value: bigint | undefined): Explained {
  return typeof what === 'bigint' ? describeRegister(decodeRegister(what), value) : describeFunction(what)
}

function describeRegister(register: Register, value: bigint | undefined): ExplainedRegister {
  const { id, name, space, width, description } = register
  const parts: [string, number | string][] = Object.entries(register.parts).map(([key, part]) => [
    key,
    typeof part === 'bigint' ? hex(part) : (part as number | string),
  ])
  const explained: ExplainedRegister = {
    kind: 'register',
    id: hex(id),
    name,
    space,
    width,
    parts: Object.fromEntries(parts),
  }
  if (description !== undefined) explained.description = description
  if (value !== undefined) explained.value = hex(value)
  const fields = registerFields(id)
  if (fields.length > 0) explained.fields = fields.map((field) => describeField(field, value))
  const bitmap = serviceBitmapOf(id)
  if (bitmap !== undefined) {
    explained.resetValue = hex(bitmap.resetValue)
    explained.services = bitmap.services.map(({ name: service, bit, kernelName, gated, functions }) => ({
      name: service,
      bit,
      kernelName,
      gated,
      functions: functions.map((functionId) => ({ id: hex(functionId), name: functionName(functionId) })),
      ...(value === undefined ? {} : { shown: ((value >> BigInt(bit)) & 1n) === 1n }),
    }))
    if (value !== undefined)
      explained.meaning = `shows ${servicesInBitmap(bitmap.group, value).join(', ') || 'no service'}`
  }
  if (name === 'KVM_REG_ARM_PSCI_VERSION' && value !== undefined && value <= 0xffff_ffffn) {
    explained.meaning = `PSCI ${decodePsciVersion(value)}`
  }
  return explained
}

function describeField(field: Field, value: bigint | undefined): ExplainedField {
  const { name, lsb, width, signed, safe, meanings } = field
  const explained: ExplainedField = {
    name,
    bits: width === 1 ? `${lsb}` : `${lsb + width - 1}:${lsb}`,
    signed,
    values: Object.fromEntries(meanings),
  }
  if (safe !== undefined) explained.safe = typeof safe === 'object' ? `only ${safe.only}` : safe
  if (value !== undefined) {
    const content = fieldValue(field, value)
    explained.value = content.toString()
    const meaning = meanings.get(content)
    if (meaning !== undefined) explained.meaning = meaning
  }
  return explained
}

function describeFunction(id: number): ExplainedFunction {
  const known = functionOf(id)
  const parts = decodeFunctionId(id)
  const gate = gateOf(id)
  return {
    kind: 'function',
    id: hex(id),
    ...(known === undefined ? {} : { name: known.name, description: known.description }),
    parts,
    owner: ownerName(parts.owner),
    gate:
      typeof gate === 'string'
        ? gate
        : {
            register: decodeRegister(gate.register).name,
            id: hex(gate.register),
            bit: gate.bit,
            service: gate.service.name,
          },
  }
}

function asText(explained: Explained): string {
  return (explained.kind === 'register' ? registerText(explained) : functionText(explained)).join('\n')
}

const spaces: Record<Register['space'], string> = {
  core: 'core register',
  demux: 'demultiplexed register',
  sysreg: 'system register',
  timer: 'timer register',
  firmware: 'firmware pseudo-register',
  bitmap: 'bitmap of hypercall services',
  sve: 'SVE register',
  unknown: 'no register of any kernel',
}

function registerText({ id, name, space, width, parts, ...rest }: ExplainedRegister): string[] {
  const numbers = Object.entries(parts).map(([part, number]) => `${part} ${number}`)
  const lines = [
    name === id ? id : `${name}  ${id}`,
    `  ${spaces[space]}, ${width} bits: ${numbers.join(', ')}`,
  ]
  if (rest.description !== undefined) lines.push(`  ${rest.description}`)
  if (rest.value !== undefined)
    lines.push(`  value ${rest.value}${rest.meaning === undefined ? '' : `: ${rest.meaning}`}`)
  if (rest.fields !== undefined) lines.push(...fieldLines(rest.fields))
  if (rest.services !== undefined)
    lines.push(`  reset value ${rest.resetValue}`, ...serviceLines(rest.services))
  return lines
}

function fieldLines(fields: ExplainedField[]): string[] {
  if (fields.some(({ value }) => value !== undefined)) {
    const rows = fields.map(({ bits, name, value = '', meaning = '' }) => [bits, name, value, meaning])
    return table(['bits', 'field', 'value', 'meaning'], rows)
  }
  const rows = fields.map(({ bits, name, signed, safe = '', values }) => [
    bits,
    name,
    signed ? 'signed' : 'unsigned',
    safe,
    Object.entries(values)
      .map(([value, meaning]) => `${value} ${meaning}`)
      .join('; '),
  ])
  return table(['bits', 'field', 'order', 'safe', 'values'], rows)
}

function serviceLines(services: ExplainedService[]): string[] {
  const rows = services.map(({ bit, name, shown, gated, functions }) => [
    `${bit}`,
    name,
    ...(shown === undefined ? [] : [shown ? 'yes' : 'no']),
    gated ? 'gates' : 'advertises',
    functions.map((entry) => `${entry.name} ${entry.id}`).join(', '),
  ])
  const shown = services.some((service) => service.shown !== undefined) ? ['shown'] : []
  return table(['bit', 'service', ...shown, '', 'functions'], rows)
}

function functionText({ id, name, description, parts, owner, gate }: ExplainedFunction): string[] {
  const kind = `${parts.fast ? 'fast' : 'yielding'} ${parts.wide ? 'SMC64/HVC64' : 'SMC32/HVC32'} call`
  const lines = [
    name === undefined ? id : `${name}  ${id}`,
    `  ${kind}, owner ${parts.owner} (${owner}), function ${hex(parts.number)}`,
  ]
  if (description !== undefined) lines.push(`  ${description}`)
  if (gate === 'default') lines.push('  KVM handles it whatever the bitmaps say')
  else if (gate === 'denied')
    lines.push('  KVM refuses it with NOT_SUPPORTED, unless the SMCCC filter forwards it to userspace')
  else lines.push(`  needs bit ${gate.bit} (${gate.service}) of ${gate.register} ${gate.id}`)
  return lines
}

/** Columns without borders, indented by two; a column without content is left out. */
function table(head: string[], rows: string[][]): string[] {
  const filled = head.map((_, column) => rows.some((row) => row[column] !== ''))
  const sides = ['top', 'bottom', 'left', 'mid', 'right', 'left-mid', 'mid-mid', 'right-mid', 'middle']
  const corners = ['top-mid', 'top-left', 'top-right', 'bottom-mid', 'bottom-left', 'bottom-right']
  const columns = new Table({
    chars: Object.fromEntries([...sides, ...corners].map((place) => [place, ''])),
    style: { head: [], border: [], 'padding-left': 2, 'padding-right': 0 },
  })
  for (const row of [head, ...rows]) columns.push(row.filter((_, column) => filled[column]))
  return columns
    .toString()
    .split('\n')
    .map((line) => line.trimEnd())
}
