/** `KVM_GET_STATS_FD`. */
import { functionIdOf } from '../../hypercalls/index.js'
import type { Kvm, Stats, Vcpu, Vm } from '../../kvm/index.js'
import { type CheckGroup, notApplicable, violated } from '../check.js'
import { answerOfOutcome, call, expect, expectValue, onBareVm, onVcpu } from '../experiments.js'

const DOCUMENT = 'api.rst, KVM_GET_STATS_FD'
const PSCI_VERSION = functionIdOf('PSCI_VERSION')
const CALLS = 3

function onStatistics(kvm: Kvm, experiment: (vcpu: Vcpu, vm: Vm) => string): string {
  if (kvm.checkExtension('KVM_CAP_BINARY_STATS_FD') <= 0) notApplicable('no KVM_CAP_BINARY_STATS_FD')
  return onVcpu(kvm, experiment)
}

/** Fails the check unless each statistic has a name of its own and at least one number. */
function expectNames(stats: Stats): void {
  const { id, statistics } = stats
  const numbers = stats.read()
  if (!id.startsWith('kvm-')) violated(`the id is ${id}`)
  if (statistics.length === 0) violated('there is no statistic')
  if (numbers.size < statistics.length) violated('two statistics have one name')
  for (const { name, size } of statistics) {
    if (name === '' || numbers.get(name)?.length !== size || size === 0) {
      violated(`a statistic of ${size} numbers is called "${name}"`)
    }
  }
}

export const statisticChecks: CheckGroup = {
  title: 'Statistics',
  checks: [
    {
      name: 'A VM and a vCPU describe their statistics, which can be read while handles of both are open',
      promise: 'the data are a header, an id string, descriptors and statistics data, each at its offset',
      source: DOCUMENT,
      mark: 'promised',
      experiment: (kvm) =>
        onStatistics(kvm, (vcpu, vm) => {
          using ofVm = vm.openStats()
          using ofVcpu = vcpu.openStats()
          for (const stats of [ofVm, ofVcpu]) expectNames(stats)
          if (ofVcpu.id !== `${ofVm.id}/vcpu-0`) violated(`the ids are ${ofVm.id} and ${ofVcpu.id}`)
          return 'describe them'
        }),
    },
    {
      name: 'A vCPU counts the calls of its guest and the accesses that end its runs',
      promise: 'hvc_exit_stat and mmio_exit_user are cumulative: they only increase',
      source: DOCUMENT,
      mark: 'observed',
      experiment: (kvm) =>
        onStatistics(kvm, (vcpu) => {
          using stats = vcpu.openStats()
          const count = (name: string): bigint => {
            const [number] = stats.read().get(name) ?? violated(`there is no statistic ${name}`)
            return number!
          }
          expectValue('hvc_exit_stat at first', count('hvc_exit_stat'), 0n)
          for (let made = 0; made < CALLS; made++) call(vcpu, PSCI_VERSION)
          expectValue('hvc_exit_stat', count('hvc_exit_stat'), BigInt(CALLS))
          // The stub guest ends each call with a store to a device.
          expectValue('mmio_exit_user', count('mmio_exit_user'), BigInt(CALLS))
          if (count('exits') < BigInt(2 * CALLS)) violated(`exits is ${count('exits')} only`)
          return 'counts them'
        }),
    },
    {
      name: 'A read beyond the end returns nothing, and a kernel without statistics returns EINVAL',
      promise: 'the capability KVM_CAP_BINARY_STATS_FD shows whether the call is there',
      source: 'every release',
      mark: 'observed',
      experiment: (kvm) =>
        onBareVm(kvm, (vm) => {
          const stats = vm.getStatsFd()
          if (kvm.checkExtension('KVM_CAP_BINARY_STATS_FD') <= 0) {
            expect('a kernel without them', answerOfOutcome(typeof stats === 'number' ? stats : 0), 'EINVAL')
            return 'EINVAL'
          }
          if (typeof stats === 'number') violated(`KVM_GET_STATS_FD: ${answerOfOutcome(stats)}`)
          const read = stats.read(1 << 20, new Uint8Array(8))
          stats.close()
          expectValue('bytes beyond the end', BigInt(read), 0n)
          return 'returns nothing'
        }),
    },
  ],
}
