/** Applies baselines, and restores what was configured by them on the other hosts of a class: the same on a real kernel and on a simulation. */
import type { Backend } from '../../lib/backend.js'
import { apply } from '../../lib/fleet/baseline/apply.js'
import { computeBaseline } from '../../lib/fleet/baseline/baseline.js'
import type { NamedReport } from '../../lib/fleet/baseline/candidate.js'
import type { Baseline } from '../../lib/fleet/baseline/format.js'
import { capture } from '../../lib/migration/capture.js'
import { attemptRestore } from '../../lib/migration/attempt.js'
import type { State } from '../../lib/migration/state.js'
import { openKvm } from '../../lib/kvm/index.js'
import { builtInReport, simulator } from '../../lib/hosts/index.js'
import { recordedHosts } from './lab-hosts.js'
import type { Answer } from './scenarios.js'

/** What is to be done on one host. */
export interface BaselineWork {
  baselines: { what: string; baseline: Baseline }[]
  /** Configured by the baseline of the host's class on its other members. */
  arrivals: { what: string; state: State }[]
}

let known: { hosts: readonly NamedReport[]; everywhere: Baseline } | undefined

/** Not before it is asked for: inside a lab there are no recorded reports. */
function fleet(): NonNullable<typeof known> {
  if (known === undefined) {
    const hosts = recordedHosts.map(({ name }) => ({ name, report: builtInReport(name) }))
    known = { hosts, everywhere: computeBaseline(hosts) }
  }
  return known
}

/** The baselines of all hosts, of those of the host's kernel, of its CPU and of its class, and what comes from its class. */
export function baselineWork(name: string): BaselineWork {
  const { kernel, cpu } = recordedHosts.find((host) => host.name === name)!
  const { hosts, everywhere } = fleet()
  const group = everywhere.classes.find((names) => names.includes(name))!
  const ofClass = computeBaseline(hosts.filter((host) => group.includes(host.name)))
  return {
    baselines: [
      { what: 'all hosts', baseline: everywhere },
      {
        what: `Linux ${kernel}`,
        baseline: computeBaseline(hosts.filter((host) => host.name.startsWith(`linux-${kernel}-`))),
      },
      { what: cpu, baseline: computeBaseline(hosts.filter((host) => host.name.endsWith(`-${cpu}`))) },
      { what: group.join(' and '), baseline: ofClass },
    ],
    arrivals: group
      .filter((other) => other !== name)
      .map((other) => ({ what: other, state: configured(simulator(other), ofClass) })),
  }
}

function configured(backend: Backend, wanted: Baseline): State {
  using kvm = openKvm(backend)
  using vm = apply(kvm, wanted).vm
  return capture(kvm, vm)
}

/** Of every register: what a baseline made of it, what the VM then held, and what became of what arrived. */
export function doBaselineWork(backend: Backend, { baselines, arrivals }: BaselineWork): Answer[] {
  using kvm = openKvm(backend)
  const answers: Answer[] = []
  for (const { what, baseline: wanted } of baselines) {
    const { vm, registers } = apply(kvm, wanted)
    for (const { name, reads, refused, errno, declared } of registers) {
      answers.push({
        question: `baseline of ${what}: ${name}`,
        answer: declared ? 'absent, as declared' : `${hex(reads)} refused ${hex(refused)} ${errno ?? ''}`,
      })
    }
    for (const { name, value } of capture(kvm, vm).vcpus.flatMap((vcpu) => vcpu.registers)) {
      // Time goes on, and a timer tells whether it has come.
      if (/TIMER_/.test(name)) continue
      answers.push({ question: `configured by ${what}: ${name}`, answer: value })
    }
    vm.close()
  }
  for (const { what, state } of arrivals) {
    using attempt = attemptRestore(kvm, state)
    const unset = attempt.unset.map(({ name }) => name)
    answers.push({ question: `from ${what}`, answer: JSON.stringify([attempt.refusals, unset]) })
    for (const { name, outcome } of attempt.outcomes) {
      answers.push({ question: `from ${what}: ${name}`, answer: outcome })
    }
  }
  return answers
}

function hex(value: bigint | null): string {
  return value === null ? 'absent' : `0x${value.toString(16)}`
}
