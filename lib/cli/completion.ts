/** Completion scripts for shells, generated from the tree of commands. They start no process at each key. */
import type { Argument, Command, Option } from 'commander'
import { builtInHosts } from '../hosts/index.js'
import { type ServiceGroup, serviceBitmaps } from '../hypercalls/index.js'
import { vmmNames } from '../migration/vmm/names.js'
import { vcpuFeatures } from '../uapi.js'
import { THIS } from './host.js'

export const shells = ['bash', 'zsh', 'fish'] as const
export type Shell = (typeof shells)[number]

/** The words that can complete a value. */
interface Values {
  words: readonly string[]
  /** Whether files complete it too. */
  files: boolean
  /** Several words, separated by commas. */
  isList: boolean
}

const nothing: Values = { words: [], files: false, isList: false }
const files: Values = { ...nothing, files: true }
const words = (...all: string[]): Values => ({ ...nothing, words: all })
const list = (...all: string[]): Values => ({ ...nothing, words: all, isList: true })

/** By the placeholder of an option or the name of an argument. Generation fails for one without an entry. */
const valuesOf: Readonly<Record<string, () => Values>> = {
  a: () => hosts(THIS),
  b: () => hosts(THIS),
  abilities: () => list('kvm', 'addon', 'lab'),
  arguments: () => nothing,
  backend: () => nothing,
  baseline: () => files,
  class: () => nothing,
  command: () => files,
  count: () => nothing,
  directory: () => files,
  engine: () => nothing,
  file: () => files,
  files: () => files,
  features: () => list(...Object.keys(vcpuFeatures)),
  format: () => nothing,
  hex: () => nothing,
  host: () => hosts(),
  hours: () => nothing,
  image: () => files,
  kernel: () => nothing,
  MiB: () => nothing,
  model: () =>
    words('cortex-a57', 'neoverse-n1', 'max', 'a64fx', 'neoverse-v1', 'neoverse-n2', 'cortex-a710'),
  n: () => nothing,
  new: () => files,
  old: () => files,
  name: () => nothing,
  number: () => nothing,
  path: () => files,
  profile: () => nothing,
  register: () => nothing,
  registers: () => nothing,
  report: () => hosts(THIS),
  reports: () => files,
  script: () => files,
  seconds: () => nothing,
  services: () => list(...serviceNames(), 'none'),
  shell: () => nothing,
  text: () => nothing,
  trace: () => files,
  version: () => nothing,
  vmm: () => words(...vmmNames()),
  vmms: () => list(...vmmNames(), 'all'),
  what: () => nothing,
}

function hosts(...others: string[]): Values {
  return { words: [...builtInHosts(), ...others], files: true, isList: false }
}

function serviceNames(): string[] {
  return (Object.keys(serviceBitmaps) as ServiceGroup[]).flatMap((group) =>
    serviceBitmaps[group].services.map(({ name }) => name),
  )
}

interface Flag {
  names: readonly string[]
  description: string
  /** Null if the option takes no value. */
  values: Values | null
}

interface Node {
  /** The words that name it, after `kvm-arm64`. */
  path: readonly string[]
  description: string
  children: readonly Node[]
  flags: readonly Flag[]
  argument: Values
}

/** @throws RangeError for a placeholder without values here */
export function completionScript(shell: Shell, program: Command): string {
  return makers[shell](nodeOf(program, []))
}

function nodeOf(command: Command, path: readonly string[]): Node {
  const options = command.options.map((option): Flag => ({
    names: [option.short, option.long].filter((name) => name !== undefined && name !== null),
    description: option.description,
    values: option.required || option.optional ? choicesOf(option, placeholderOf(option)) : null,
  }))
  const [argument] = command.registeredArguments
  return {
    path,
    description: command.description(),
    children: command.commands.map((child) => nodeOf(child, [...path, child.name()])),
    flags: [...options, { names: ['-h', '--help'], description: 'show help', values: null }],
    argument: argument === undefined ? nothing : choicesOf(argument, argument.name()),
  }
}

function placeholderOf({ flags }: Option): string {
  return /<([^>.]+)/.exec(flags)?.[1] ?? ''
}

function choicesOf({ argChoices }: Option | Argument, placeholder: string): Values {
  if (argChoices !== undefined) return words(...argChoices)
  const values = Object.hasOwn(valuesOf, placeholder) ? valuesOf[placeholder] : undefined
  if (values === undefined) throw new RangeError(`no values to complete for <${placeholder}>`)
  return values()
}

function withDescendants(node: Node): Node[] {
  return [node, ...node.children.flatMap(withDescendants)]
}

const makers: Readonly<Record<Shell, (root: Node) => string>> = { bash, zsh, fish }

function bash(root: Node): string {
  const nodes = withDescendants(root)
  const takers = nodes.flatMap(({ path, flags }) =>
    flags.flatMap(({ names, values }) =>
      values === null
        ? []
        : [`    ${names.map((name) => `'${[...path, name].join(' ')}'`).join('|')}) ${bashValues(values)};;`],
    ),
  )
  const commands = nodes.map(({ path, children, flags, argument }) => {
    const options = flags.flatMap(({ names }) => names).join(' ')
    const names = children.map(({ path: inner }) => inner.at(-1)).join(' ')
    const plain = [
      ...(children.length > 0 ? [`_kvm_arm64_words '${names}'`] : []),
      ...(children.length > 0 && argument === nothing ? [] : [bashValues(argument)]),
    ].join('; ')
    return `    '${path.join(' ')}') if [[ $cur == -* ]]; then _kvm_arm64_words '${options}'; else ${plain}; fi;;`
  })
  return `# kvm-arm64 completion for bash: source <(kvm-arm64 completion bash)
_kvm_arm64_words() { COMPREPLY+=($(compgen -W "$1" -- "$cur")); }
_kvm_arm64_files() { compopt -o filenames 2>/dev/null; COMPREPLY+=($(compgen -f -- "$cur")); }
_kvm_arm64_list() {
  local before=''
  [[ $cur == *,* ]] && before="\${cur%,*},"
  compopt -o nospace 2>/dev/null
  COMPREPLY+=($(compgen -P "$before" -W "$1" -- "\${cur##*,}"))
}
_kvm_arm64() {
  local cur=\${COMP_WORDS[COMP_CWORD]} path='' word index IFS=$' \\t\\n'
  COMPREPLY=()
  for ((index = 1; index < COMP_CWORD; index++)); do
    word=\${COMP_WORDS[index]}
    case "\${path:+$path }$word" in
${nodes
  .slice(1)
  .map(({ path }) => `      '${path.join(' ')}') path='${path.join(' ')}';;`)
  .join('\n')}
    esac
  done
  case "\${path:+$path }\${COMP_WORDS[COMP_CWORD - 1]}" in
${takers.map((line) => line.replace(/;;$/, '; return;;')).join('\n')}
  esac
  case "$path" in
${commands.join('\n')}
  esac
}
complete -F _kvm_arm64 kvm-arm64
`
}

function bashValues({ words: all, files: withFiles, isList }: Values): string {
  const steps = [
    ...(all.length === 0 ? [] : [`_kvm_arm64_${isList ? 'list' : 'words'} '${all.join(' ')}'`]),
    ...(withFiles ? ['_kvm_arm64_files'] : []),
  ]
  return steps.join('; ') || ':'
}

function zsh(root: Node): string {
  const functions = withDescendants(root).map((node) => {
    const { path, children, flags, argument } = node
    const specs = flags.map(({ names, description, values }) => {
      // Only one of an option's names may be used.
      const head = names.length > 1 ? `(${names.join(' ')})'{${names.join(',')}}'` : names[0]!
      return `'${head}[${zshText(description)}]${values === null ? '' : `:value:${zshAction(values)}`}'`
    })
    const rest =
      children.length > 0
        ? [
            argument !== nothing
              ? `'1:command:{compadd -- ${children.map((child) => child.path.at(-1)).join(' ')}; ${zshAction(argument)}}'`
              : `'1:command:((${children.map((child) => `${child.path.at(-1)}\\:"${zshText(child.description).replaceAll('"', '')}"`).join(' ')}))'`,
            "'*::argument:->rest'",
          ]
        : argument === nothing
          ? []
          : [`'*:argument:${zshAction(argument)}'`]
    const inner =
      children.length > 0
        ? `\n  [[ $state == rest ]] && case $line[1] in
${children.map((child) => `    ${child.path.at(-1)}) ${zshName(child)};;`).join('\n')}
  esac`
        : ''
    return `${zshName({ path })}() {
  local line state
  _arguments -C ${[...specs, ...rest].join(' \\\n    ')}${inner}
}`
  })
  return `#compdef kvm-arm64
# kvm-arm64 completion for zsh: source <(kvm-arm64 completion zsh)
${functions.join('\n')}
if [[ $funcstack[1] == _kvm-arm64 ]]; then _kvm_arm64 "$@"; else compdef _kvm_arm64 kvm-arm64; fi
`
}

function zshName({ path }: Pick<Node, 'path'>): string {
  return ['_kvm_arm64', ...path].join('_')
}

/** Text inside single quotes, in which brackets and colons mean nothing to `_arguments`. */
function zshText(text: string): string {
  return text
    .replaceAll(/[[\]:\\]/g, (character) => `\\${character}`)
    .replaceAll(/[`$]/g, '')
    .replaceAll("'", String.raw`'\''`)
}

function zshAction({ words: all, files: withFiles, isList }: Values): string {
  if (all.length === 0) return withFiles ? '_files' : ' '
  if (isList) return `_sequence compadd - ${all.join(' ')}`
  return withFiles ? `{compadd -- ${all.join(' ')}; _files}` : `(${all.join(' ')})`
}

function fishLines({ path, children, flags, argument }: Node): string[] {
  const start = `complete -c kvm-arm64 -n '__kvm_arm64_at "${path.join(' ')}"'`
  const ofChildren = children.map(
    (child) =>
      `${start}${argument === nothing ? ' -f' : ''} -a ${child.path.at(-1)} -d ${fishText(child.description)}`,
  )
  const ofFlags = flags.map(({ names, description, values }) => {
    const flagNames = names.map((name) =>
      name.startsWith('--') ? `-l ${name.slice(2)}` : `-s ${name.slice(1)}`,
    )
    const value = values === null ? '' : fishValues(values, '-x', '-r')
    return `${start} ${flagNames.join(' ')}${value} -d ${fishText(description)}`
  })
  const ofArgument =
    children.length > 0 && argument === nothing ? [] : [`${start}${fishValues(argument, '-f', '-F')}`]
  return [ofChildren, ofFlags, ofArgument].flat()
}

function fish(root: Node): string {
  const lines = withDescendants(root).flatMap(fishLines)
  const paths = withDescendants(root)
    .slice(1)
    .map(({ path }) => `'${path.join(' ')}'`)
  return `# kvm-arm64 completion for fish
function __kvm_arm64_at
  set -l path ''
  for word in (commandline -opc)[2..-1]
    set -l longer (string trim -- "$path $word")
    contains -- "$longer" ${paths.join(' ')}; and set path "$longer"
  end
  test "$path" = "$argv[1]"
end
${lines.join('\n')}
`
}

/**
 * @param alone fish's option for values without files
 * @param beside its option for values with files
 */
function fishValues({ words: all, files: withFiles, isList }: Values, alone: string, beside: string): string {
  const candidates = isList
    ? ` -a '(__fish_complete_list , "string split \\" \\" \\"${all.join(' ')}\\"")'`
    : all.length === 0
      ? ''
      : ` -a '${all.join(' ')}'`
  return ` ${withFiles ? beside : alone}${candidates}`
}

function fishText(text: string): string {
  return `'${text.replaceAll('\\', '\\\\').replaceAll("'", String.raw`\'`)}'`
}
