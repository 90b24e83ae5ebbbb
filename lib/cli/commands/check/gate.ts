/**
 * `kvm-arm64 check --class A --class B --fleet FILE`: answers from a fleet that was analysed before. A scheduler starts the command for
 * each move, so this file imports no more than that needs: Node would load the rest of `check` for several times as long as this runs.
 */
import { parseArgs } from 'node:util'
import type { GateAnswer } from '../../../fleet/gate-answer.js'
import type { FleetGate, GateMove } from '../../../fleet/gate.js'
import { readGate } from '../../../fleet/gate-file.js'
import type { Finding } from '../../../migration/finding.js'
import { isObstacle } from '../../../migration/obstacle.js'
import { CommandError, exitStatus } from '../../exit.js'
import { paint, print, printJson, reportError } from '../../output.js'
import { count, wrap } from '../../view/text.js'

/** Prints the answer for these options of `check`, and sets the exit status. */
export function answerGate(options: readonly string[]): void {
  try {
    run(options)
  } catch (error) {
    reportError(error)
  }
}

const USAGE = 'expected --class FROM --class TO --fleet FILE, and --both or --json'

function run(options: readonly string[]): void {
  const { class: names = [], fleet, both, json } = parsed(options)
  const [source, destination, ...others] = names
  if (fleet === undefined || source === undefined || destination === undefined || others.length > 0) {
    throw new CommandError(USAGE, exitStatus.usage)
  }
  const answer = answerOf(readGate(fleet), source, destination)
  if (json) printJson(answer)
  else print(textOf(answer))
  const isYes = answer.there.possible && (both !== true || answer.back.possible)
  process.exitCode = isYes ? exitStatus.done : exitStatus.negative
}

function parsed(options: readonly string[]) {
  try {
    return parseArgs({
      args: [...options],
      options: {
        class: { type: 'string', multiple: true },
        fleet: { type: 'string' },
        both: { type: 'boolean' },
        json: { type: 'boolean' },
      },
    }).values
  } catch (error) {
    const [problem] = (error as Error).message.split('. ')
    throw new CommandError(`${problem}; ${USAGE}`, exitStatus.usage)
  }
}

function answerOf(gate: FleetGate, source: string, destination: string): GateAnswer {
  try {
    const [from, to] = [gate.classOf(source), gate.classOf(destination)]
    const end = ({ digest, hostCount }: typeof from) => ({ class: digest, hostCount })
    return {
      format: 'kvm-arm64/gate',
      version: 1,
      vmm: gate.vmm,
      from: end(from),
      to: end(to),
      there: partOf(gate.move(from.digest, to.digest)),
      back: partOf(gate.move(to.digest, from.digest)),
    }
  } catch (error) {
    if (!(error instanceof RangeError)) throw error
    throw new CommandError(error.message, exitStatus.usage)
  }
}

function partOf({ possible, unknown, findings }: GateMove): GateAnswer['there'] {
  return { possible, unknown: [...unknown], findings }
}

/** Findings shown of a move. */
const SHOWN = 10

function textOf({ vmm, from, to, there, back }: GateAnswer): string {
  const head = `${paint('bold', `${from.class} → ${to.class}`)}, ${vmm}: ${outcome(there)}`
  const stopping = there.findings.filter(isObstacle)
  const changes = there.findings.length - stopping.length
  return [
    wrap(head, 0, 2),
    ...stopping.slice(0, SHOWN).map((finding) => wrap(findingText(finding), 2, 4)),
    ...(stopping.length > SHOWN ? [`  and ${stopping.length - SHOWN} more: --json lists all`] : []),
    ...(there.possible && changes > 0
      ? [
          `  its guest sees ${count(changes, 'change')}: --json lists all, docs/findings.md explains each code`,
        ]
      : []),
    ...(from.class === to.class ? [] : [wrap(`the way back: ${outcome(back)}`, 2, 4)]),
    ...(there.possible && !back.possible ? ['  one way: a VM that moves cannot come back'] : []),
  ].join('\n')
}

function outcome({ possible, unknown, findings }: GateAnswer['there']): string {
  const stopping = findings.filter(isObstacle).length
  const why = possible ? '' : `, stopped by ${count(stopping, 'obstacle')}`
  if (unknown.length === 0) return (possible ? paint('green', 'yes') : paint('red', 'no')) + why
  const facts = unknown.map((fact) => fact.replaceAll('-', ' ')).join(', ')
  return `${possible ? paint('yellow', 'yes, as far as known') : paint('red', 'no')}${why}; not known: ${facts}`
}

/** `KVM_REG_ARM_PSCI_VERSION: 0x10003 → 0x10001 (psci-version-refused)` */
function findingText(finding: Finding): string {
  const { code, register, field } = finding
  if (register === undefined) return code
  const subject = field === undefined ? register.name : `${register.name}.${field}`
  return `${subject}: ${finding.source ?? 'absent'} → ${finding.destination ?? 'absent'} (${code})`
}
