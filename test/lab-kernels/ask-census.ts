/**
 * Runs inside a real kernel: takes the census of every election under every version of PSCI, of the kernel and of the built-in
 * host named, prints how they and the gate's prediction compare, and exits 1 where they differ. With `few` after the host, only of
 * the elections of everything and of nothing.
 */
import { isDeepStrictEqual } from 'node:util'
import { census, type CensusCall } from '../../lib/probe/census.js'
import { type PsciVersion, psciVersions } from '../../lib/hypercalls/index.js'
import { kernelBackend } from '../../lib/kernel/index.js'
import { type Election, type Kvm, KvmError, openKvm } from '../../lib/kvm/index.js'
import { simulator } from '../../lib/hosts/index.js'
import { bitmapsOf, prediction } from './gate-prediction.js'

const [host = '', extent] = process.argv.slice(2)
using kernel = openKvm(kernelBackend)
using simulated = openKvm(simulator(host))

let censuses = 0
let calls = 0
let predicted = 0
let differences = 0
const all = elections(kernel)
for (const services of extent === 'few' ? [all[0]!, all.at(-1)!] : all) {
  const bitmaps = bitmapsOf(kernel, services)
  for (const psci of psciVersions) {
    const real = take(kernel, services, psci)
    const expected = take(simulated, services, psci)
    const under = `[${Object.values(services).flat().join()}] and PSCI ${psci}`
    const length = Math.max(real.length, expected.length)
    for (let n = 0; n < length; n++) {
      if (isDeepStrictEqual(real[n], expected[n])) continue
      differences++
      console.log(`under ${under}: the kernel ${text(real[n])}, the simulator ${text(expected[n])}`)
    }
    for (const call of real) {
      const found = typeof call === 'string' ? undefined : prediction(call, { psci, bitmaps })
      if (found === undefined) continue
      predicted++
      if (typeof call === 'string' || call.found === found) continue
      differences++
      console.log(`under ${under}: the kernel ${text(call)}, the gate ${found ? 'something' : 'nothing'}`)
    }
    censuses++
    calls += real.length
  }
}
console.log(
  `${censuses} censuses, ${calls} calls, ${predicted} of them predicted by the gate, ${differences} differences`,
)
if (differences > 0) process.exitCode = 1

/** Every set of the services there are. */
function elections(kvm: Kvm): Election[] {
  using vm = kvm.createVm()
  return Object.entries(vm.services.supported).reduce<Election[]>(
    (sets, [group, names]) =>
      subsets(names).flatMap((subset) => sets.map((set) => ({ ...set, [group]: subset }))),
    [{}],
  )
}

function subsets(names: readonly string[]): string[][] {
  return names.reduce<string[][]>((sets, name) => sets.flatMap((set) => [set, [...set, name]]), [[]])
}

/** The calls, or the error where the host has no such version. */
function take(kvm: Kvm, services: Election, psci: PsciVersion): (CensusCall | string)[] {
  try {
    return census(kvm, { elect: services, psci })
  } catch (error) {
    if (error instanceof KvmError) return [`${error.code} ${error.errno}`]
    throw error
  }
}

function text(value: unknown): string {
  return JSON.stringify(value, (_, part: unknown) => (typeof part === 'bigint' ? part.toString(16) : part))
}
