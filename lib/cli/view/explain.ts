/** Explains a register or a hypercall function in words. */
import {
  decodeFunctionId,
  decodePsciVersion,
  functionName,
  functionOf,
  gateOf,
  ownerName,
  type PsciVersion,
  psciVersions,
  serviceBitmapOf,
  servicesInBitmap,
} from '../../hypercalls/index.js'
import {
  decodeRegister,
  type Field,
  fieldValue,
  hex,
  type Register,
  type Mention,
  registerFields,
} from '../../registers/index.js'
import { differingField, differingFields, meaningOf } from '../../registers/differing-fields.js'
import { table } from './table.js'

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
  shown: boolean | undefined
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

/** A register that a line of text speaks of. */
export interface ExplainedMention extends ExplainedRegister {
  /** The words that name it. */
  text: string
  /** The value that was to be written to it. */
  written?: string
  /** The value it held. */
  held?: string
}

interface ExplainedFunction {
  kind: 'function'
  id: string
  name?: string
  description?: string
  parts: ReturnType<typeof decodeFunctionId>
  owner: string
  /** The PSCI version of the calling vCPU to which `gate` applies; absent if it applies to any, as in released kernels. */
  psci?: PsciVersion
  gate: 'default' | 'denied' | { register: string; id: string; bit: number; service: string }
  /** PSCI versions whose vCPUs can reach KVM's handler with the call. */
  reachedUnder: PsciVersion[]
}

export type Explained = ExplainedRegister | ExplainedFunction

/** With `value`, also explains that value of the register. */
export function explainRegister(id: bigint, value?: bigint): ExplainedRegister {
  const register = decodeRegister(id)
  const { name, space, width, description } = register
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
  if (fields.length > 0) explained.fields = fields.map((field) => explainField(field, value))
  const bitmap = serviceBitmapOf(id)
  if (bitmap !== undefined) {
    const shown = value === undefined ? undefined : servicesInBitmap(bitmap.group, value)
    explained.resetValue = hex(bitmap.resetValue)
    explained.services = bitmap.services.map(({ name: service, bit, kernelName, gated, functions }) => ({
      name: service,
      bit,
      kernelName,
      gated,
      functions: functions.map((functionId) => ({ id: hex(functionId), name: functionName(functionId) })),
      shown: shown?.includes(service),
    }))
    if (shown !== undefined) explained.meaning = `shows ${shown.join(', ') || 'no service'}`
  }
  if (name === 'KVM_REG_ARM_PSCI_VERSION' && value !== undefined && value <= 0xffff_ffffn) {
    explained.meaning = `PSCI ${decodePsciVersion(value)}`
  }
  return explained
}

/** Explains a mentioned register; of one that held another value than was to be written, the fields in which these differ. */
export function explainMention({ id, text, written, held }: Mention): ExplainedMention {
  const { fields, ...explained } = explainRegister(id, written)
  const differing =
    written === undefined || held === undefined
      ? undefined
      : new Set(differingFields(id, written, held).map(({ name }) => name))
  return {
    ...explained,
    text,
    ...(written !== undefined && { written: hex(written) }),
    ...(held !== undefined && { held: hex(held) }),
    ...(fields !== undefined &&
      written !== undefined && {
        fields: fields.filter(({ name }) => differing === undefined || differing.has(name)),
      }),
  }
}

function explainField(field: Field, value: bigint | undefined): ExplainedField {
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

/** With `psci`, explains it for a vCPU of that version. */
export function explainFunction(id: number, psci?: PsciVersion): ExplainedFunction {
  const known = functionOf(id)
  const parts = decodeFunctionId(id)
  const gate = gateOf(id, psci)
  return {
    kind: 'function',
    id: hex(id),
    ...(known === undefined ? {} : { name: known.name, description: known.description }),
    parts,
    owner: ownerName(parts.owner),
    ...(psci === undefined ? {} : { psci }),
    reachedUnder: psciVersions.filter((version) => gateOf(id, version) !== 'denied'),
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

export function explanation(explained: Explained): string {
  return (explained.kind === 'register' ? registerText(explained) : functionText(explained)).join('\n')
}

/** What a mentioned register is and, if the text has values, what they mean. */
export function mentionText(explained: ExplainedMention): string {
  const {
    text: _words,
    written,
    held,
    value: _same,
    meaning,
    fields = [],
    services: _bits,
    ...register
  } = explained
  const lines = registerText(register)
  if (written !== undefined) {
    const was = held === undefined ? '' : `, and it held ${held}`
    lines.push(`  ${written}${meaning === undefined ? '' : ` (${meaning})`} was to be written${was}`)
  }
  if (fields.length > 0) {
    const rows = fields.map(({ bits, name, value = '', meaning: means }) => [
      bits,
      name,
      means === undefined ? value : `${value} (${means})`,
      held === undefined ? '' : meaningOf(differingField(BigInt(explained.id), name), BigInt(held)),
    ])
    lines.push(table(['bits', 'field', 'written', 'held'], rows))
  }
  return lines.join('\n')
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
  const isForeign = space === 'unknown' && rest.description !== undefined
  const numbers = Object.entries(parts).map(([part, number]) => `${part} ${number}`)
  const lines = [
    name === id ? id : `${name}  ${id}`,
    `  ${isForeign ? 'register of another architecture' : spaces[space]}, ${width} bits: ${numbers.join(', ')}`,
  ]
  if (rest.description !== undefined) lines.push(`  ${rest.description}`)
  if (rest.value !== undefined)
    lines.push(`  value ${rest.value}${rest.meaning === undefined ? '' : `: ${rest.meaning}`}`)
  if (rest.fields !== undefined) lines.push(fieldTable(rest.fields))
  if (rest.services !== undefined) lines.push(`  reset value ${rest.resetValue}`, serviceTable(rest.services))
  return lines
}

function fieldTable(fields: ExplainedField[]): string {
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

function serviceTable(services: ExplainedService[]): string {
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

function functionText({
  id,
  name,
  description,
  parts,
  owner,
  psci,
  gate,
  reachedUnder,
}: ExplainedFunction): string[] {
  const kind = `${parts.fast ? 'fast' : 'yielding'} ${parts.wide ? 'SMC64/HVC64' : 'SMC32/HVC32'} call`
  const lines = [
    name === undefined ? id : `${name}  ${id}`,
    `  ${kind}, owner ${parts.owner} (${owner}), function ${hex(parts.number)}`,
  ]
  if (description !== undefined) lines.push(`  ${description}`)
  const caller = psci === undefined ? '' : `from a vCPU of PSCI ${psci}, `
  if (gate === 'default') lines.push(`  ${caller}reaches KVM’s handler whatever the bitmaps say`)
  else if (gate === 'denied') {
    lines.push(
      `  ${caller}KVM refuses it with NOT_SUPPORTED, unless the SMCCC filter forwards it to userspace`,
    )
  } else lines.push(`  needs bit ${gate.bit} (${gate.service}) of ${gate.register} ${gate.id}`)
  if (psci === undefined && gate === 'default' && reachedUnder.length < psciVersions.length) {
    lines.push(`  ${reachText(reachedUnder)}`)
  }
  return lines
}

/** Describes how the handler treats a call that only some PSCI versions have; 0.1 stands against all others. */
function reachText(versions: readonly PsciVersion[]): string {
  if (versions.length === 0) return 'the handler refuses it under every PSCI version: NOT_SUPPORTED'
  return versions.includes('0.1')
    ? 'the handler answers it under PSCI 0.1 only: NOT_SUPPORTED under any other'
    : 'the handler refuses it under PSCI 0.1: NOT_SUPPORTED'
}
