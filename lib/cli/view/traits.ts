import { decodePsciVersion } from '../../hypercalls/index.js'
import { hex, registerName } from '../../registers/index.js'
import { mitigationsOf, psciVersionsOf } from '../../report/registers.js'
import type { Report, Traits } from '../../report/report.js'
import { properties } from './table.js'

type Row = readonly [question: string, answer: string]

/** Describes the results of the experiments on a host's KVM. */
export function traitsText(report: Report): string {
  const { traits } = report
  const names = Object.keys(inWords) as (keyof Traits)[]
  return properties([...firmwareRows(report), ...names.flatMap((trait) => rowsOf(traits, trait))])
}

// oxlint-disable-next-line typescript/no-unnecessary-type-parameters -- it ties the words to what they are about
function rowsOf<Trait extends keyof Traits>(traits: Traits, trait: Trait): readonly Row[] {
  return inWords[trait](traits[trait])
}

export function psciVersions(report: Report): string {
  return psciVersionsOf(report).map(decodePsciVersion).join(' ')
}

function firmwareRows(report: Report): readonly Row[] {
  return [
    ['PSCI versions accepted', psciVersions(report)],
    ...mitigationsOf(report).flatMap(({ name, withoutSsbs }): Row[] =>
      withoutSsbs === undefined
        ? []
        : [
            [
              `${name.replace('KVM_REG_ARM_SMCCC_ARCH_', '')} once ID_AA64PFR1_EL1.SSBS is cleared`,
              `${hex(withoutSsbs.value)}, accepts ${withoutSsbs.accepts.map(hex).join(' ')}`,
            ],
          ],
    ),
  ]
}

const afterRun: Readonly<Record<Traits['idRegisterAfterRun'], string>> = {
  busy: 'EBUSY, whatever the value',
  'busy-if-changed': 'EBUSY if the value changes',
  unguarded: 'accepted as before',
}

const stages: Readonly<Record<Traits['lossyRegisters'][number]['by'], string>> = {
  run: 'a KVM_RUN',
  load: 'a KVM_RUN without immediate_exit',
  guest: 'guest code has run',
}

const scopeOfWidth: Readonly<Record<NonNullable<Traits['init']['registerWidth']>, string>> = {
  vm: 'the VM, by its first KVM_ARM_VCPU_INIT',
  'every-vcpu': 'every vCPU that exists, initialised or not',
  vcpu: 'each vCPU',
}

/** In the order shown. A trait added to the report must be added here too. */
const inWords: { readonly [Trait in keyof Required<Traits>]: (found: Traits[Trait]) => readonly Row[] } = {
  bitmapAfterRun: (rule) => [
    ['bitmap written after the first run', rule === null ? 'no such register' : afterRun[rule]],
  ],
  idRegisterAfterRun: (rule) => [['ID register written after the first run', afterRun[rule]]],
  changedByFirstRun: (changes = []) =>
    changes.map(({ name, mask, value }) => [`${name} in the first run`, `bits ${mask} become ${value}`]),
  changedByVgic: (changes = []) =>
    changes.map(({ name, mask, value }) => [`${name} when a GIC is created`, `bits ${mask} become ${value}`]),
  hiddenRegisters: (rows = []) =>
    rows.map(({ name, nibble, values, hides }) => [
      `${name}[${nibble}] set to ${values} hides`,
      hides.map((register) => register.name).join(' '),
    ]),
  lossyRegisters: (lossy) =>
    lossy.map(({ name, by, kept }) => [
      `${name} after ${stages[by]}`,
      kept === '0x0' ? 'reads 0' : `keeps bits ${kept}`,
    ]),
  init: (init) => [
    ['vCPU targets accepted', init.targets.join(' ')],
    ['vCPU features supported', init.supported.join(' ')],
    ...(init.unknown ? [['vCPU features not known', init.unknown.join(' ')] as const] : []),
    ['vCPU features known', `bits 0 to ${init.knownFeatures - 1}; any other is ENOENT`],
    ['features belong to', init.scope === 'vm' ? scopeOfWidth.vm : 'each vCPU'],
    ...(init.registerWidth ? [['el1-32bit belongs to', scopeOfWidth[init.registerWidth]] as const] : []),
    ['power-off', init.powerOff === 'sticky' ? 'must be repeated on every init' : 'counts for one init'],
    [
      'an init refused with ENOENT',
      init.leaksRefusedFeatures ? 'leaves features for the next init' : 'changes nothing',
    ],
    ...(init.leaksSve
      ? [['an init with sve refused', `leaves SVE on, if refused for ${init.leaksSve.join(' or ')}`] as const]
      : []),
    ...(init.kept
      ? [['kept when initialised again', init.kept.map((id) => registerName(BigInt(id))).join(' ')] as const]
      : []),
    ['pending SError when initialised again', init.keepsSError ? 'kept once the vCPU has run' : 'dropped'],
  ],
  firmwareWidthChecked: (checked) => [
    [
      'firmware register set with another width',
      checked ? 'ENOENT before the value is read' : 'the value is read first',
    ],
  ],
  setReadsValueFirst: ({ systemRegister, unknownSpace }) => [
    ['system register set', systemRegister ? 'the value is read before the look-up' : 'looked up first'],
    ['id of an unknown space set', unknownSpace ? 'the value is read before ENOENT' : 'ENOENT first'],
  ],
  faultingSetZeroes: (zeroes) => [
    ['system register set from a bad address', zeroes ? 'zeroed, then EFAULT' : 'EFAULT'],
  ],
  narrowedRegisters: (which) =>
    which === undefined
      ? []
      : [
          [
            'core registers truncated to 32 bits in AArch32',
            which === 'visible' ? 'those the mode sees' : 'all, once any flag of PSTATE is set',
          ],
        ],
  vcpuEventsNeedInit: (need) => [['KVM_GET_VCPU_EVENTS before init', need ? 'ENOEXEC' : 'succeeds']],
  sErrorWakes: (wakes) => [
    ['a pending SError', wakes ? 'ends a wait for an interrupt' : 'does not end a wait'],
  ],
  sErrorDropped: (dropped) => (dropped ? [['a pending SError when guest code runs', 'is dropped']] : []),
  smcccFilter: (filter) => [
    ['SMCCC filter', filter === null ? 'no' : `yes; an empty range at 0 is ${filter.emptyRangeAtZero}`],
  ],
  hypercalls: ({ services, smc, affinityMasked, sameAffinity }) => [
    ['services a guest finds', services.join(' ') || 'none'],
    ['calls by smc', smc ? 'same answers as by hvc' : 'NOT_SUPPORTED'],
    ['PSCI affinity with stray bits', affinityMasked ? 'the bits are dropped' : 'INVALID_PARAMETERS'],
    ['PSCI affinity of several vCPUs', `selects the ${sameAffinity}`],
  ],
  devices: (types) => [
    ['devices', types?.map((type) => type.replace('KVM_DEV_TYPE_', '')).join(' ') ?? 'not known'],
  ],
  timers: ({ interrupts, scope }) => [
    ['interrupts of timers', `${interrupts.join(' ')}, of ${scope === 'vm' ? 'the VM' : 'each vCPU'}`],
  ],
  pmu: (pmu) =>
    pmu === null
      ? []
      : [
          [
            'events of a PMU',
            pmu.filter === null
              ? 'cannot be filtered'
              : `${pmu.filter.events} can be filtered${pmu.filter.afterRun ? ', also after the first run' : ''}`,
          ],
          ['PMU of a VM', pmu.ids === null ? 'cannot be chosen' : `one of ${pmu.ids.join(' ')}, by its id`],
          ['counters of a PMU', pmu.counters === null ? 'cannot be chosen' : `up to ${pmu.counters}`],
          ...(pmu.firstRunKeeps === undefined
            ? []
            : [
                [
                  'PMCR_EL0 in the first run',
                  `zeroes counters as asked, and keeps bits ${pmu.firstRunKeeps}`,
                ] as const,
              ]),
        ],
  runWithoutPmuInit: (errno) => [
    ['first run with a PMU not initialised', errno ?? 'runs, or there is no PMU'],
  ],
  vgicAddressCheckedFirst: (first) => (first ? [['second address of a GIC', 'checked before EEXIST']] : []),
  irqEventKeepsCount: (keeps) => (keeps ? [['an event that raises an interrupt', 'keeps its count']] : []),
  irqLineByIndex: (byIndex) => (byIndex ? [['KVM_IRQ_LINE finds a vCPU', 'by the order of creation']] : []),
  irqLineChecksInitFirst: (first) =>
    first ? [['interrupt line that does not exist', 'EBUSY before the GIC is initialised']] : [],
  gicRevisionKept: (kept) => (kept ? [['revision written to GICD_IIDR', 'accepted and ignored']] : []),
  runWithoutVgicInit: (found) => [
    [
      'first run with a GICv3 not configured',
      found === null
        ? 'runs, or there is no GICv3'
        : `${found.errno}${found.killsVm ? ', and the VM is dead: EIO from then on' : ''}`,
    ],
  ],
}
