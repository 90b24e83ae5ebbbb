import { readFileSync } from 'node:fs'
import { Command, Option } from 'commander'
import { printable } from '../../documents/printable.js'
import {
  functionNamed,
  type HypercallFunction,
  nearestFunctionNames,
  type PsciVersion,
  psciVersions,
} from '../../hypercalls/index.js'
import {
  decodeRegister,
  encodeRegister,
  hex,
  type Mention,
  nearestNames,
  registerMentions,
  UnknownRegisterError,
} from '../../registers/index.js'
import { CommandError, exitStatus } from '../exit.js'
import {
  type Explained,
  type ExplainedMention,
  explainFunction,
  explainMention,
  explainRegister,
  explanation,
  mentionText,
} from '../view/explain.js'
import { print, printJson } from '../output.js'

interface Flags {
  value?: string
  psci?: PsciVersion
  json?: boolean
}

/** `kvm-arm64 decode`: explain a register id, a name or a hypercall's function id. */
export function decodeCommand(): Command {
  return new Command('decode')
    .argument(
      '[what...]',
      'ids (0x6030000000160000), names (ID_AA64PFR0_EL1), macros, function ids (0x84000050), or a line of a log; none: standard input',
    )
    .option('--value <hex>', 'also decode this value of the register')
    .addOption(
      new Option('--psci <version>', 'for hypercalls: the PSCI version of the vCPU that calls').choices(
        psciVersions,
      ),
    )
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      `
A number of up to 32 bits (hexadecimal with 0x, or decimal) is the function id
of a hypercall, a longer one is a register id. Unknown ids are still split into
fields, and marked as unknown. The macros are those of the kernel, of QEMU and
of Firecracker: ARM64_SYS_REG(3, 0, 0, 4, 0), KVM_REG_ARM64_SVE_ZREG(0, 0),
SYS_ID_AA64PFR0_EL1.

Without arguments it reads lines of a log from standard input, and explains the
registers that each names: as QEMU does (fw feat reg 3, system register op0:3
…), as Firecracker does, or by any of the above. Where a line says which value
was to be written and which the register held, the fields that differ follow.

Exit status: 1 if a log names no register; 2 for an unknown name.

Examples:
  kvm-arm64 decode 0x6030000000160000
  kvm-arm64 decode ID_AA64PFR0_EL1 --value 0x1100000011111112
  kvm-arm64 decode 0x84000050 TRNG_RND64 --json
  kvm-arm64 decode 'ARM64_SYS_REG(3, 0, 0, 4, 0)'
  kvm-arm64 decode < qemu.log`,
    )
    .action((arguments_: string[], { json, ...flags }: Flags) => {
      if (arguments_.length === 0) explainLog(readLog(), json)
      else explainNames(arguments_, flags, json)
    })
}

function explainNames(names: readonly string[], flags: Omit<Flags, 'json'>, json: boolean | undefined): void {
  const problems: string[] = []
  const answers = names.flatMap((name): Answer[] => {
    try {
      const mentions = mentionsIn(name)
      if (mentions.length > 0) return mentions.map(answerTo)
      return explain(name, flags, names.length).map((data) => ({ data, text: explanation(data) }))
    } catch (error) {
      if (!(error instanceof RangeError)) throw error
      problems.push(error.message)
      return []
    }
  })
  if (problems.length > 0) {
    throw new CommandError(problems.join('\n'), exitStatus.usage)
  }
  if (json) printJson(answers.map(({ data }) => data))
  else print(answers.map(({ text }) => text).join('\n\n'))
}

interface Answer {
  data: Explained | ExplainedMention
  text: string
}

/** Without a value, all there is to know of the register; with one, what the value means. */
function answerTo(mention: Mention): Answer {
  if (mention.written === undefined) {
    const data = explainRegister(mention.id)
    return { data, text: explanation(data) }
  }
  const data = explainMention(mention)
  return { data, text: mentionText(data) }
}

function readLog(): string[] {
  if (process.stdin.isTTY) {
    throw new CommandError('name what to decode, or give a log on standard input', exitStatus.usage)
  }
  return readFileSync(0, 'utf8').split(/\r?\n/)
}

/** The registers of an argument of several words that is no name: QEMU's `fw feat reg 3`, or a whole line. */
function mentionsIn(argument: string): Mention[] {
  if (!/\s/.test(argument.trim())) return []
  try {
    encodeRegister(argument)
    return []
  } catch {
    return registerMentions(argument)
  }
}

/** @throws CommandError with the status of a negative answer if no line names a register */
function explainLog(lines: readonly string[], json: boolean | undefined): void {
  const telling = lines
    .map((line) => ({ line, registers: registerMentions(line).map(explainMention) }))
    .filter(({ registers }) => registers.length > 0)
  if (telling.length === 0) {
    throw new CommandError('no line names a register of arm64 KVM', exitStatus.negative)
  }
  if (json) {
    printJson(telling)
    return
  }
  const explained = new Set<string>()
  const texts = telling.map(({ line, registers }) => {
    const words = registers.map((register) => {
      const text = mentionText(register)
      if (explained.has(text)) return register.name
      explained.add(text)
      return text
    })
    return [printable(line.trim()), ...words.map((text) => text.replaceAll(/^/gm, '  '))].join('\n')
  })
  print(texts.join('\n\n'))
}

/** @throws RangeError naming the argument, if it stands for nothing or the value does not fit it */
function explain(argument: string, { value, psci }: Omit<Flags, 'json'>, count: number): Explained[] {
  const found = lookUp(argument)
  if (psci !== undefined && !found.some((what) => typeof what === 'number')) {
    throw new RangeError(`--psci applies to hypercalls, and "${argument}" is a register`)
  }
  if (value === undefined) {
    return found.map((what) =>
      typeof what === 'bigint' ? explainRegister(what) : explainFunction(what, psci),
    )
  }
  if (count > 1) throw new RangeError(`--value applies to one register; found ${count} arguments`)
  const register = found.find((what) => typeof what === 'bigint')
  if (register === undefined)
    throw new RangeError(`--value applies to registers, and "${argument}" is a hypercall`)
  const { name, width } = decodeRegister(register)
  if (!/^0x[0-9a-f]+$/i.test(value))
    throw new RangeError(`--value: expected 0x and hexadecimal digits, found "${value}"`)
  const bits = BigInt(value)
  if (bits >> BigInt(width) !== 0n)
    throw new RangeError(`--value ${value} does not fit the ${width} bits of ${name}`)
  return [explainRegister(register, bits)]
}

/** Registers as ids, functions as numbers. PSCI_VERSION and the workarounds are both. */
function lookUp(argument: string): (bigint | number)[] {
  const given = argument.trim()
  const text = /^\d+$/.test(given) ? hex(BigInt(given)) : given
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
