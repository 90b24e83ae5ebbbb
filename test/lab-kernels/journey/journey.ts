/**
 * What firmware bitmap registers are for, played on real kernels: a guest that starts on a new kernel is carried, memory and all, to
 * older ones, with and without an election made for the way.
 */
import { withBaseline } from '../../../lib/fleet/baseline/apply.js'
import { computeBaseline } from '../../../lib/fleet/baseline/baseline.js'
import type { Baseline } from '../../../lib/fleet/baseline/format.js'
import { strict } from '../../../lib/migration/vmm/rules.js'
import { attemptRestore, type RegisterOutcome } from '../../../lib/migration/attempt.js'
import { openKvm } from '../../../lib/kvm/index.js'
import type { Lab } from '../../../lib/lab/index.js'
import { builtInReport, simulator } from '../../../lib/hosts/index.js'
import { bootWithTests } from '../lab-hosts.js'
import type { Errand, Luggage, Stay } from './stay.js'

const CPU = 'neoverse-n1'
const kernels = ['7.2', '6.1', '5.10'] as const
type Kernel = (typeof kernels)[number]

export interface Step {
  title: string
  on: Kernel
  stay: Stay
  /** What a restore onto the simulated host said beforehand of each register; null where nothing was restored. */
  predicted: readonly RegisterOutcome[] | null
}

/** Boots the kernels, and tells each step as it has been made. */
export async function* journey(): AsyncGenerator<Step> {
  await using labs = await bootAll()
  const step = async (title: string, on: Kernel, errand: Errand): Promise<Step> => {
    const { status, stdout, stderr } = await labs.on[on].run(
      ['node', 'dist/test/lab-kernels/journey/run-stay.js'],
      {
        stdin: JSON.stringify(errand),
      },
    )
    if (status !== 0) throw new Error(`${title}: ${String(stderr)}`)
    return { title, on, stay: JSON.parse(String(stdout)) as Stay, predicted: predict(on, errand) }
  }

  const free = await step('A guest starts on Linux 7.2, and nothing was elected', '7.2', {
    do: 'start',
    baseline: null,
  })
  yield free
  const luggage = luggageOf(free)
  for (const on of ['6.1', '5.10'] as const) {
    yield await step(`It is carried to Linux ${on}`, on, { do: 'resume', luggage, baseline: null })
    const title = `A VMM that looks away restores there what it can`
    yield await step(title, on, { do: 'resume regardless', luggage })
  }

  for (const fleet of [
    ['7.2', '6.1'],
    ['7.2', '6.1', '5.10'],
  ] as const) {
    const elected = baselineOf(fleet)
    let last = await step(`It starts with the baseline of ${fleet.join(', ')} elected`, '7.2', {
      do: 'start',
      baseline: elected,
    })
    yield last
    for (const on of [...fleet.slice(1), '7.2'] as const) {
      const errand = { do: 'resume', luggage: luggageOf(last), baseline: elected } as const
      const next = await step(`It is carried to Linux ${on}`, on, errand)
      yield next
      if ('refused' in next.stay) {
        const title = 'All but what the baseline could not settle is restored there'
        last = await step(title, on, { do: 'resume regardless', luggage: errand.luggage })
        yield last
      } else last = next
    }
  }
}

async function bootAll(): Promise<{ on: Record<Kernel, Lab> } & AsyncDisposable> {
  const labs: Lab[] = []
  const close = async (): Promise<void> => {
    await Promise.all(labs.map((lab) => lab.close()))
  }
  try {
    for (const kernel of kernels) labs.push(await bootWithTests({ kernel, cpu: CPU }))
  } catch (error) {
    await close()
    throw error
  }
  const on = Object.fromEntries(kernels.map((kernel, index) => [kernel, labs[index]!]))
  return { on: on as Record<Kernel, Lab>, [Symbol.asyncDispose]: close }
}

function predict(on: Kernel, errand: Errand): readonly RegisterOutcome[] | null {
  if (errand.do !== 'resume') return null
  const rules = errand.baseline === null ? strict : withBaseline(strict, errand.baseline)
  using attempt = attemptRestore(openKvm(simulator(nameOf(on))), errand.luggage.state, {
    carries: (id) => rules.carries(id),
  })
  return attempt.outcomes
}

function luggageOf({ title, stay }: Step): Luggage {
  if ('refused' in stay) throw new Error(`${title}: ${stay.refused}`)
  return stay.luggage
}

function baselineOf(fleet: readonly Kernel[]): Baseline {
  return computeBaseline(
    fleet.map((kernel) => ({ name: nameOf(kernel), report: builtInReport(nameOf(kernel)) })),
  )
}

function nameOf(kernel: Kernel): string {
  return `linux-${kernel}-${CPU}`
}
