/** The man page, made from the help of the commands. */
import type { Command } from 'commander'

/** `kvm-arm64(1)` as troff with the macros of man(7). */
export function manPage(root: Command): string {
  const { description, after } = helpOf(root)
  const lines = [
    `.TH KVM\\-ARM64 1 "" "kvm\\-arm64 ${troff(root.version()!)}"`,
    '.ad l',
    '.nh',
    '.SH NAME',
    `kvm\\-arm64 \\- ${troff(description)}`,
    '.SH SYNOPSIS',
    String.raw`\fBkvm\-arm64\fR [\fIoptions\fR] \fIcommand\fR [\fIarguments\fR]`,
    '.SH OPTIONS',
    ...termsOf(root),
    '.SH COMMANDS',
    ...root.commands.flatMap(commandLines),
    ...textLines(after, (title) => `.SH ${title.toUpperCase()}`),
  ]
  return `${lines.join('\n')}\n`
}

function commandLines(command: Command): string[] {
  const { usage, description, after } = helpOf(command)
  return [
    `.SS ${troff(usage)}`,
    troff(`${description}.`),
    ...termsOf(command),
    ...textLines(after, (title) => `.PP\n.B ${troff(title)}`),
    ...command.commands.flatMap(commandLines),
  ]
}

interface Help {
  usage: string
  description: string
  /** What follows the lists of options and commands. */
  after: string
}

function helpOf(command: Command): Help {
  let text = ''
  command.configureOutput({ writeOut: (part) => (text += part), getOutHasColors: () => false })
  command.outputHelp()
  return {
    usage: command.createHelp().commandUsage(command),
    description: command.description(),
    after: text.slice(command.helpInformation().length),
  }
}

/** The arguments and options. */
function termsOf(command: Command): string[] {
  const help = command.createHelp()
  const terms = [
    ...help
      .visibleArguments(command)
      .map((argument) => [help.argumentTerm(argument), help.argumentDescription(argument)]),
    ...help
      .visibleOptions(command)
      .map((option) => [help.optionTerm(option), help.optionDescription(option)]),
  ]
  return terms.flatMap(([term, text]) => ['.TP', `.B ${troff(term!)}`, troff(text!)])
}

/**
 * Running text: lines that are indented stay as they are, others are filled.
 * @param heading what stands in place of a line that ends with a colon and has nothing but indented lines below it
 */
function textLines(text: string, heading: (title: string) => string): string[] {
  const blocks = text.split(/\n{2,}/).map((block) => block.split('\n').filter((line) => line !== ''))
  return blocks.flatMap((lines, index) => {
    const following = lines[1] ?? blocks[index + 1]?.[0]
    const title = /^([A-Z][a-z ]*):$/.exec(lines[0] ?? '')?.[1]
    return title !== undefined && following?.startsWith(' ')
      ? [heading(title)].concat(bodyLines(lines.slice(1)))
      : bodyLines(lines)
  })
}

function bodyLines(lines: readonly string[]): string[] {
  return lines.flatMap((line, index) => {
    const isIndented = line.startsWith(' ')
    const wasIndented = lines[index - 1]?.startsWith(' ')
    return [
      ...(isIndented && wasIndented !== true ? ['.PP', '.nf'] : []),
      ...(!isIndented && wasIndented === undefined ? ['.PP'] : []),
      troff(line),
      ...(isIndented && !lines[index + 1]?.startsWith(' ') ? ['.fi'] : []),
    ]
  })
}

const spelling: Readonly<Record<string, string>> = {
  '\\': String.raw`\e`,
  '-': String.raw`\-`,
  "'": String.raw`\(aq`,
  '`': String.raw`\(ga`,
  '^': String.raw`\(ha`,
  '~': String.raw`\(ti`,
}

/** Text as troff prints it, letter by letter. */
function troff(text: string): string {
  const escaped = text.replaceAll(
    /[\\\-'`^~]|[^ -~]/gu,
    (character) =>
      spelling[character] ?? `\\[u${character.codePointAt(0)!.toString(16).toUpperCase().padStart(4, '0')}]`,
  )
  // A dot at the start of a line would be a request.
  return escaped.startsWith('.') ? `\\&${escaped}` : escaped
}
