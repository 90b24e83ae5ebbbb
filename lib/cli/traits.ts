import { decodePsciVersion } from '../hypercalls/index.js'
import type { Report, Traits } from '../report/report.js'
import { properties } from './table.js'

/** What experiments on the host's KVM found, in words. */
export function traitsText({ traits }: Report): string {
  const { init, workaround2WithoutSsbs: withoutSsbs, smcccFilter, runWithoutVgicInit: vgic } = traits
  const { systemRegister, unknownSpace } = traits.setReadsValueFirst
  return properties([
    ['PSCI versions accepted', psciVersions(traits)],
    [
      'bitmap written after the first run',
      traits.bitmapAfterRun === null ? 'there is none' : afterRun[traits.bitmapAfterRun],
    ],
    ['ID register written after the first run', afterRun[traits.idRegisterAfterRun]],
    [
      'WORKAROUND_2 once ID_AA64PFR1_EL1.SSBS is cleared',
      withoutSsbs === null ? 'as before' : `${withoutSsbs.value}, accepts ${withoutSsbs.accepted.join(' ')}`,
    ],
    ['vCPU targets accepted', init.targets.join(' ')],
    ['vCPU features supported', init.supported.join(' ')],
    ['vCPU features known', `bits 0 to ${init.knownFeatures - 1}; any other is ENOENT`],
    ['features are chosen for', init.scope === 'vm' ? 'the VM, by its first KVM_ARM_VCPU_INIT' : 'each vCPU'],
    ['power-off', init.powerOff === 'sticky' ? 'must be repeated on every init' : 'counts for one init'],
    [
      'an init refused with ENOENT',
      init.leaksRefusedFeatures ? 'leaves features for the next init' : 'changes nothing',
    ],
    [
      'firmware register set with another width',
      traits.firmwareWidthChecked ? 'ENOENT before the value is read' : 'the value is read first',
    ],
    [
      'system register set',
      systemRegister
        ? 'the value is read before the register is looked up'
        : 'the register is looked up first',
    ],
    [
      'id of an unknown space set',
      unknownSpace ? 'the value is read before the id is refused' : 'the id is refused first',
    ],
    ['KVM_GET_VCPU_EVENTS before init', traits.vcpuEventsNeedInit ? 'ENOEXEC' : 'answered'],
    [
      'SMCCC filter',
      smcccFilter === null ? 'no' : `yes; an empty range at 0 is ${smcccFilter.emptyRangeAtZero}`,
    ],
    ['first run with a PMU not initialised', traits.runWithoutPmuInit ?? 'runs, or there is no PMU'],
    [
      'first run with a GICv3 not configured',
      vgic === null
        ? 'runs, or there is no GICv3'
        : `${vgic.errno}${vgic.killsVm ? ', and the VM is dead: EIO from then on' : ''}`,
    ],
  ])
}

export function psciVersions({ psciVersions: versions }: Traits): string {
  return versions.map((version) => decodePsciVersion(BigInt(version))).join(' ')
}

const afterRun: Readonly<Record<Traits['idRegisterAfterRun'], string>> = {
  busy: 'EBUSY, whatever the value',
  'busy-if-changed': 'EBUSY where the value changes',
  unguarded: 'accepted as before',
}
