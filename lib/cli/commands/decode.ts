import { Command, Option } from 'commander'
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
  nearestNames,
  UnknownRegisterError,
} from '../../registers/index.js'
import { CommandError, exitStatus } from '../exit.js'
import { type Explained, explainFunction, explainRegister, explanation } from '../view/explain.js'
import { print, printJson } from '../output.js'

interface Flags {
  value?: string
  psci?: PsciVersion
  json?: boolean
}

/** `kvm-arm64 decode`: explain a register id, a name or a hypercall's function id. */
export function decodeCommand(): Command {
  return new Command('decode')
    .argument('<what...>', 'ids (0x6030000000160000), names (ID_AA64PFR0_EL1), function ids (0x84000050)')
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
fields, and marked as unknown.

Exit status: 2 for an unknown name.

Examples:
  kvm-arm64 decode 0x6030000000160000
  kvm-arm64 decode ID_AA64PFR0_EL1 --value 0x1100000011111112
  kvm-arm64 decode 0x84000050 TRNG_RND64 --json`,
    )
    .action((arguments_: string[], { json, ...flags }: Flags) => {
      const problems: string[] = []
      const explained = arguments_.flatMap((argument) => {
        try {
          return explain(argument, flags, arguments_.length)
        } catch (error) {
          if (!(error instanceof RangeError)) throw error
          problems.push(error.message)
          return []
        }
      })
      if (problems.length > 0) {
        throw new CommandError(problems.join('\n'), exitStatus.usage)
      }
      if (json) printJson(explained)
      else print(explained.map(explanation).join('\n\n'))
    })
}

/** @throws RangeError naming the argument, if it stands for nothing or the value does not fit it */
function explain(argument: string, { value, psci }: Omit<Flags, 'json'>, count: number): Explained[] {
  const found = lookUp(argument)
  if (psci !== undefined && !found.some((what) => typeof what === 'number')) {
    throw new RangeError(`"${argument}" is a register, and --psci is about hypercalls`)
  }
  if (value === undefined) {
    return found.map((what) =>
      typeof what === 'bigint' ? explainRegister(what) : explainFunction(what, psci),
    )
  }
  if (count > 1) throw new RangeError(`--value belongs to a single register, not to ${count} arguments`)
  const register = found.find((what) => typeof what === 'bigint')
  if (register === undefined) throw new RangeError(`"${argument}" is a hypercall, which has no --value`)
  const { name, width } = decodeRegister(register)
  if (!/^0x[0-9a-f]+$/i.test(value))
    throw new RangeError(`--value "${value}" is no number: 0x and hexadecimal digits`)
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
