/**
 * The words for findings: the only sentences about them. Each code has a general explanation, from which `docs/findings.md` is
 * generated, and the sentences about one finding.
 */
import {
  decodePsciVersion,
  encodePsciVersion,
  psciFunctions,
  serviceBitmapOf,
  workarounds,
} from '../hypercalls/index.js'
import { differingField, meaningOf } from '../registers/differing-fields.js'
import { type Field, fieldValue } from '../registers/index.js'
import { longestVector } from '../registers/sve.js'
import type { Finding, FindingCode, Pin, RegisterFinding, Severity } from './finding.js'
import type { Gic, Unsavable } from './vmm/rules.js'

/** One finding in words, without full stops. */
export interface FindingWords {
  /** The VM's value. */
  source: string
  /** What the destination has or accepts. */
  destination: string
  /** The consequence for the guest. */
  meaning: string
  /** The remedy. */
  remedy: string
}

/** The words of one code. */
interface CodeWords<F extends Finding> {
  /** Text for any finding of the code, used in the documentation. */
  readonly general: { readonly meaning: string; readonly remedy: string }
  /** Text for one finding of the code; `vmm` is the name of the rules that judged it. */
  readonly of: (finding: F, vmm: string) => FindingWords
}

type FindingOf<Code extends FindingCode> = Code extends RegisterFinding['code']
  ? RegisterFinding
  : Extract<Finding, { code: Code }>

/** Returns what a code means in general and what prevents it, in whole sentences. */
export function generalWords(code: FindingCode): { meaning: string; remedy: string } {
  return codeWords[code].general
}

/**
 * Returns one finding in words.
 * @param vmm the rules that judged the move, as in `MoveVerdict.vmm`
 */
export function findingWords(finding: Finding, vmm: string): FindingWords {
  const words = (codeWords[finding.code] as CodeWords<Finding>).of(finding, vmm)
  const remedy = finding.register === undefined ? undefined : remedyText(finding, vmm)
  return remedy === undefined ? words : { ...words, remedy }
}

/** Returns the remedy that was found for this VM and these hosts; undefined if that of the code applies. */
function remedyText({ remedy, pin, code }: RegisterFinding, vmm: string): string | undefined {
  if (remedy === undefined) return undefined
  switch (remedy.by) {
    case 'option':
      return `start the VM on the ${remedy.on} with ${remedy.option}`
    case 'drop':
      return `remove the register from the state${vmm.startsWith('firecracker') ? ' (snapshot-editor edit-vmstate remove-regs)' : ''}; check --drop-registers shows the rest`
    case 'features':
      return `create the VM on the ${remedy.on} without ${remedy.features.join(', ')}`
    case 'none':
      return remedy.reason === 'vmm-cannot'
        ? `none: ${vmm} has no option for it; restart the guest on the destination`
        : `none: the source does not accept ${pin === undefined ? 'another value' : pinText(pin)}; restart the guest on the destination`
    default: {
      const how = pin!.before === 'finalize' ? 'before KVM_ARM_VCPU_FINALIZE' : 'before the first run'
      const write =
        remedy.by === 'template'
          ? `put ${pinText(pin!)} into the VM’s CPU template`
          : `write ${pinText(pin!)} ${how}; the source accepts it`
      return code === 'service-lost' ? `${write}, and use a VMM that leaves out the register` : write
    }
  }
}

/** `ID_AA64ISAR0_EL1.RNDR = 0` */
function pinText({ register, field, value }: Pin): string {
  if (field === undefined) return `${register.name} = ${value}`
  const isBitmap = serviceBitmapOf(BigInt(register.id)) !== undefined
  const number = isBitmap ? BigInt(value) : numberIn(differingField(BigInt(register.id), field), value)
  return `${register.name}.${field} = ${number}`
}

/** Returns the subject of a finding: `ID_AA64ISAR0_EL1.RNDR`, or `the VM`. */
export function findingSubject(finding: Finding): string {
  if (finding.register === undefined) return finding.vcpus.length === 0 ? 'the VM' : 'the vCPUs'
  const { register, field } = finding
  return field === undefined ? register.name : `${register.name}.${field}`
}

/** The heading over findings of a severity. */
export function severityWords(severity: Severity): string {
  return severity.replaceAll('-', ' ')
}

const NO_REGISTER = 'no such register'
const NOTHING = 'nothing needs to be done'
const OTHER_HOST = 'choose a destination of the same CPU and kernel'

const codeWords: { readonly [Code in FindingCode]: CodeWords<FindingOf<Code>> } = {
  'address-space-refused': {
    general: {
      meaning:
        'The VM has more bits of guest physical address than the destination can address. The guest’s memory may lie beyond its reach.',
      remedy:
        'Create the VM with an address space that every host has; `KVM_CAP_ARM_VM_IPA_SIZE` reports the largest.',
    },
    of: ({ ipaSize, errno }) => ({
      source: `${ipaSize} bits of guest physical address`,
      destination: errno,
      meaning: 'the guest’s memory may lie where the destination cannot address it',
      remedy: 'create the VM with an address space every host has (KVM_CAP_ARM_VM_IPA_SIZE)',
    }),
  },
  'capability-refused': {
    general: {
      meaning: 'The VM was created with a capability that the destination’s kernel does not have.',
      remedy: 'Create the VM without the capability.',
    },
    of: ({ capability, errno }) => ({
      source: capability,
      destination: errno,
      meaning: 'the VM was created with a capability the destination does not have',
      remedy: `create the VM without ${capability}`,
    }),
  },
  'smccc-filter-refused': {
    general: {
      meaning:
        'Userspace handles some of the guest’s hypercalls, and the destination does not accept the SMCCC filter that routes them to it: the calls would reach KVM.',
      remedy:
        'Create the VM without a filter, or choose a destination with `KVM_ARM_VM_SMCCC_FILTER` (Linux 6.4 and later).',
    },
    of: ({ base, count, action, errno }) => ({
      source: `${action} ${count} functions from 0x${base.toString(16)}`,
      destination: errno,
      meaning: 'calls that userspace handles for the guest would reach KVM',
      remedy: 'create the VM without a filter, or choose a destination with KVM_ARM_VM_SMCCC_FILTER',
    }),
  },
  'vcpu-refused': {
    general: {
      meaning: 'The destination refuses to create the vCPU; most often it allows fewer vCPUs or lower ids.',
      remedy: 'Create the VM with fewer vCPUs; `KVM_CAP_MAX_VCPUS` reports how many the destination allows.',
    },
    of: ({ vcpus, errno }) => ({
      source: vcpus.length === 1 ? `vCPU ${vcpus[0]}` : `vCPUs ${vcpus.join(', ')}`,
      destination: errno,
      meaning: 'the destination does not allow as many vCPUs',
      remedy: 'create the VM with fewer vCPUs',
    }),
  },
  'features-refused': {
    general: {
      meaning:
        'The destination has no vCPU with these features (`KVM_ARM_VCPU_INIT`), or not with all of them together. The guest may use them.',
      remedy: 'Create the VM without the features that are missing.',
    },
    of: ({ features, missing, errno }) => ({
      source: features.join(', ') || 'no features',
      destination: errno,
      meaning:
        missing.length === 0
          ? 'the destination does not have these vCPU features together'
          : `the guest may use ${missing.join(', ')}; the destination has no vCPU with it`,
      remedy:
        missing.length === 0
          ? 'create the VM with only one of them'
          : `create the VM without ${missing.join(', ')}`,
    }),
  },
  'finalize-refused': {
    general: {
      meaning: 'The destination refuses `KVM_ARM_VCPU_FINALIZE`: it cannot settle the vector lengths of SVE.',
      remedy: 'Create the VM without `sve`.',
    },
    of: ({ errno }) => ({
      source: 'sve',
      destination: errno,
      meaning: 'the destination cannot settle the vector lengths',
      remedy: 'create the VM without sve',
    }),
  },
  'mp-state-refused': {
    general: {
      meaning: 'The destination does not support the state (`KVM_SET_MP_STATE`) in which the vCPU sleeps.',
      remedy: 'Wake the guest before it is moved.',
    },
    of: ({ mpState, errno }) => ({
      source: mpState,
      destination: errno,
      meaning: 'the destination does not support the state in which the vCPU sleeps',
      remedy: 'wake the guest before it is moved',
    }),
  },
  'device-refused': {
    general: {
      meaning:
        'The destination cannot make a device of the VM, or refuses a setting or a register of it: the GICv3, the PMU, a timer’s interrupt, stolen time, the counter’s offset.',
      remedy: 'Make the VM without it, or with a value that the destination accepts.',
    },
    of: ({ what, errno }) => ({
      source: what,
      destination: errno,
      meaning: 'the destination refuses this device, setting or register',
      remedy: 'make the VM without it, or with a value that the destination accepts',
    }),
  },
  'device-state-differs': {
    general: {
      meaning: 'The destination accepts a value of the interrupt controller and then shows another.',
      remedy: 'None: the destination’s interrupt controller cannot hold the value.',
    },
    of: ({ what, source, destination }) => ({
      source: `${what} = ${source}`,
      destination,
      meaning: 'the interrupt controller shows another value than the guest left there',
      remedy: 'none: the destination’s interrupt controller cannot hold the value',
    }),
  },
  'device-not-carried': {
    general: {
      meaning:
        'KVM holds a part of the VM that does not move with it. A state of this library has no place for a GICv2, what a GICv3 keeps for EL2, the tables of an interrupt translation service (ITS), the tags of memory (MTE), or another device. A VMM may carry them in its own format; where that is not known, the verdict lists `moved-parts` as unknown instead.',
      remedy: 'Make the VM with a GICv3 and without that part, or carry the part by other means.',
    },
    of: ({ device }) => ({
      source: device,
      destination: 'not carried',
      meaning: 'this part of the VM does not move with it, and the guest would find it empty',
      remedy: 'make the VM with a GICv3 and without that part, or carry the part by other means',
    }),
  },
  'events-refused': {
    general: {
      meaning:
        'The destination refuses the vCPU’s events (`KVM_SET_VCPU_EVENTS`): an SError that is pending for the guest would be lost.',
      remedy: 'Move the guest while no SError is pending.',
    },
    of: ({ events, errno }) => ({
      source: `events ${events.replace(/(?:00)+$/, '') || '00'}`,
      destination: errno,
      meaning: 'an SError that is pending for the guest would be lost',
      remedy: 'move the guest while no SError is pending',
    }),
  },
  'save-refused': {
    general: {
      meaning:
        'The VMM cannot save such a VM: one with SVE (Firecracker before 1.7, cloud-hypervisor 42 to 52), with a GICv2 or an ITS (crosvm), with EL2 or with memory tags (QEMU).',
      remedy: 'Use a version of the VMM that can, or create the VM without it.',
    },
    of: ({ property }, vmm) => ({
      source: unsavableText[property],
      destination: 'not saved',
      meaning: `${vmm} cannot save a VM with ${unsavableText[property]}`,
      remedy: `none with ${vmm} while the VM has it; a VM without ${unsavableText[property]} can be saved`,
    }),
  },
  'interrupt-controller-missing': {
    general: {
      meaning:
        'KVM emulates none of the interrupt controllers there that the VMM can use (`KVM_CREATE_DEVICE`): the VM cannot be created.',
      remedy: 'Choose a host with such an interrupt controller.',
    },
    of: ({ on, controllers }, vmm) => ({
      source: `${vmm} uses ${controllers.map((one) => gicText[one]).join(' or ')}`,
      destination: `the ${on} has ${controllers.length > 1 ? 'neither' : 'none'}`,
      meaning: `the VM cannot be created on the ${on}`,
      remedy: `choose a ${on} on which KVM emulates ${controllers.map((one) => gicText[one]).join(' or ')}`,
    }),
  },
  'interrupt-controller-differs': {
    general: {
      meaning:
        'The VMM gives the VM another interrupt controller on the destination. The guest drives the one it booted with, and the state of one does not load into the other.',
      remedy: 'Choose a destination on which the VMM makes the same interrupt controller.',
    },
    of: ({ source, destination }, vmm) => ({
      source: gicText[source],
      destination: gicText[destination],
      meaning: `the state of a ${gicText[source]} does not load into a ${gicText[destination]}`,
      remedy: `choose a destination on which ${vmm} makes a ${gicText[source]}`,
    }),
  },
  'page-size-larger': {
    general: {
      meaning:
        'The destination’s kernel has larger pages. KVM maps guest memory in whole pages of the host, so it may refuse (`EINVAL`) the memory slots of a VMM that laid them out for smaller pages.',
      remedy:
        'Align the VM’s memory to the larger pages, or choose a destination with pages of the same size.',
    },
    of: ({ source, destination }) => ({
      source: `pages of ${source} bytes`,
      destination: `pages of ${destination} bytes`,
      meaning: 'KVM refuses memory slots that are not aligned to the destination’s pages',
      remedy: `align the VM’s memory to ${destination} bytes`,
    }),
  },
  'address-space-smaller': {
    general: {
      meaning:
        'VMs on the destination can have fewer bits of guest physical address space than on the source. This VM’s own size is accepted there, but a VMM that gives a VM the largest address space of its host cannot make the same VM.',
      remedy:
        'Create VMs with an address space that every host has; `KVM_CAP_ARM_VM_IPA_SIZE` reports the largest.',
    },
    of: ({ source, destination }) => ({
      source: `up to ${source} bits of guest physical address`,
      destination: `up to ${destination}`,
      meaning:
        'a VMM that gives a VM the largest address space of its host cannot make this VM on the destination',
      remedy: `create VMs with at most ${destination} bits`,
    }),
  },
  'several-cpu-kinds': {
    general: {
      meaning:
        'The machine has CPUs of several kinds. A VM shows the CPU it runs on, and a report describes only the kind it was probed on: even a VM that stays on this host, or is restored there, meets other values on a CPU of another kind, or cannot run.',
      remedy:
        'Keep the VM’s threads on CPUs of one kind, and probe that kind: `taskset -c 4 kvm-arm64 probe`.',
    },
    of: ({ on, kinds }) => ({
      source: `the ${on} has ${kinds.length} kinds of CPU`,
      destination: kinds.join(', '),
      meaning: 'this verdict holds only while the VM stays on CPUs of the kind that was probed',
      remedy: 'keep the VM’s threads on CPUs of one kind (taskset, cgroups), and probe that kind',
    }),
  },
  'vector-state-lost': {
    general: {
      meaning:
        'The VMM saves no vector register of a VM with SVE. Whatever the guest computed in them is lost, without an error.',
      remedy: 'Create the VM without `sve`, or use a VMM that saves it.',
    },
    of: (_finding, vmm) => ({
      source: 'Z0 to Z31, P0 to P15, FFR',
      destination: '0',
      meaning: `${vmm} saves no register of SVE; the guest’s vector state is lost, whatever it holds`,
      remedy: 'create the VM without sve, or use a VMM that saves it',
    }),
  },
  'counter-refused': {
    general: {
      meaning:
        'The counter of the destination has another frequency (`CNTFRQ_EL0`), and the VMM refuses such a restore: KVM cannot scale the counter, and the guest’s clock would run at a wrong speed.',
      remedy: 'Choose a destination whose counter has the same frequency.',
    },
    of: ({ source, destination }, vmm) => ({
      source: hertzText(source),
      destination: hertzText(destination),
      meaning: `${vmm} refuses a restore where CNTFRQ_EL0 differs`,
      remedy: 'choose a destination whose counter has the same frequency',
    }),
  },
  'counter-frequency-changes': {
    general: {
      meaning:
        'The counter of the destination has another frequency (`CNTFRQ_EL0`). KVM cannot scale it, and a running guest does not read the frequency again: its clock and timers run at a wrong speed.',
      remedy: 'Choose a destination whose counter has the same frequency.',
    },
    of: ({ source, destination }) => ({
      source: hertzText(source),
      destination: hertzText(destination),
      meaning: `the guest’s clock and timers run at ${(Number(destination) / Number(source)).toFixed(3)} times their speed`,
      remedy: 'choose a destination whose counter has the same frequency',
    }),
  },
  'psci-version-refused': {
    general: {
      meaning:
        'The guest was given a version of PSCI that the destination does not speak, and may use the functions that version added.',
      remedy:
        'Write a version that both hosts accept to `KVM_REG_ARM_PSCI_VERSION` on the source, before the first run.',
    },
    of(finding) {
      const { accepted = [], pin } = finding
      const source = BigInt(finding.source!)
      const version = psciText(source)
      const newest = pin && BigInt(pin.value)
      const lost = psciFunctions.filter(({ since, kvm }) => {
        const from = encodePsciVersion(since)
        return kvm && newest !== undefined && from > newest && from <= source
      })
      const uses = lost.length === 0 ? '' : ` and may use ${lost.map(({ name }) => name).join(', ')}`
      const texts = accepted.map((value) => `${value} (${psciText(BigInt(value))})`)
      const speaks = accepted.length === 0 ? 'none' : `${psciText(BigInt(accepted.at(-1)!))} at most`
      return {
        source: `${finding.source} (PSCI ${version})`,
        destination: `accepts ${texts.join(', ') || 'no version'}`,
        meaning: `the guest was given PSCI ${version}${uses}; the destination speaks ${speaks}`,
        remedy:
          pin === undefined
            ? 'create the VM with other vCPU features'
            : `write ${pin.register.name} = ${pin.value} (${psciText(BigInt(pin.value))}) before the first run`,
      }
    },
  },
  'vector-lengths-refused': {
    general: {
      meaning: 'The guest may use SVE vectors of a length that the destination does not have.',
      remedy:
        'Write the lengths both hosts have to `KVM_REG_ARM64_SVE_VLS` on the source, before `KVM_ARM_VCPU_FINALIZE`; where they have none in common, create the VM without `sve`.',
    },
    of: ({ source, destination, pin }) => ({
      source: `${source} (up to ${longestVector(BigInt(source ?? 0))} bits)`,
      destination: `${destination} (up to ${longestVector(BigInt(destination ?? 0))} bits)`,
      meaning: 'the guest may use vectors of a length the destination does not have',
      remedy:
        pin === undefined
          ? 'create the VM without sve'
          : `write ${pin.register.name} = ${pin.value} before KVM_ARM_VCPU_FINALIZE`,
    }),
  },
  'vector-lengths-change': {
    general: {
      meaning:
        'The VMM does not carry the vector lengths, so the guest continues with those of the destination: its vector length may change while it runs, and no error reports it.',
      remedy: 'Give the VM vector lengths that both hosts have.',
    },
    of: ({ source, destination, pin }) => ({
      source: `${source} (up to ${longestVector(BigInt(source ?? 0))} bits)`,
      destination: `${destination} (up to ${longestVector(BigInt(destination ?? 0))} bits)`,
      meaning: 'the guest goes on, perhaps with another vector length; longer vectors lose their upper part',
      remedy:
        pin === undefined
          ? 'create the VM without sve'
          : `write ${pin.register.name} = ${pin.value} before KVM_ARM_VCPU_FINALIZE`,
    }),
  },
  'guest-read-differs': {
    general: {
      meaning:
        'A guest reads the register from the CPU itself, and the two CPUs differ. With another block size in `DCZID_EL0`, code that looked it up once clears too much memory with `DC ZVA`, or too little.',
      remedy: 'Choose a destination of the same CPU, or restart the guest there.',
    },
    of: ({ register, source, destination }) => ({
      source: source ?? NO_REGISTER,
      destination: destination ?? NO_REGISTER,
      meaning: `the guest reads ${register.name} from the CPU, and code that has read it keeps the old value`,
      remedy: 'choose a destination of the same CPU, or restart the guest there',
    }),
  },
  'cpu-identity': {
    general: {
      meaning:
        '`MIDR_EL1`, `REVIDR_EL1` or `AIDR_EL1` differ: the destination is another CPU. The guest chose its errata workarounds, and some software its code, by the identity it first saw.',
      remedy:
        'Enable `KVM_CAP_ARM_WRITABLE_IMP_ID_REGS` on the destination’s VM before its first vCPU (Linux 6.15 and later), or choose a destination of the same CPU.',
    },
    of: (finding) => ({
      ...wholeValues(finding),
      meaning: 'the guest chose its errata workarounds, and some software its code, by the CPU it first saw',
      remedy:
        finding.capability === undefined
          ? 'choose a destination of the same CPU, or one with KVM_CAP_ARM_WRITABLE_IMP_ID_REGS'
          : `enable ${finding.capability} before the first vCPU`,
    }),
  },
  'field-refused': {
    general: {
      meaning:
        'The destination refuses this value of a field of an ID register. The guest may rely on what the field announces.',
      remedy:
        'Write a value that both hosts accept to the field on the source, before the first run. `kvm-arm64 baseline` finds values for a whole set of hosts.',
    },
    of(finding) {
      const field = fieldOf(finding)
      const source = meaningIn(field, finding.source)
      const accepted = (finding.accepted ?? []).map((value) => numberIn(field, value))
      return {
        source,
        destination: `${meaningIn(field, finding.destination)}${accepted.length > 1 ? `, accepts ${accepted.join(', ')}` : ''}`,
        meaning: `the guest may rely on ${field.name} = ${source}; the destination cannot show that`,
        remedy: finding.pin === undefined ? OTHER_HOST : fieldPinText(finding.pin),
      }
    },
  },
  'value-refused': {
    general: {
      meaning: 'The destination refuses the register’s value, and no single field is to blame.',
      remedy: 'Choose a destination of the same CPU and kernel.',
    },
    of: (finding) => ({
      ...wholeValues(finding),
      meaning: 'the destination does not accept this value',
      remedy: OTHER_HOST,
    }),
  },
  'mitigation-weaker': {
    general: {
      meaning:
        'The guest may rely on a mitigation of a Spectre variant that the destination does not provide (`KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_n`).',
      remedy: 'Choose a destination with the mitigation; userspace cannot elect it.',
    },
    of: (finding) => ({
      ...levels(finding),
      meaning: mitigationText(finding),
      remedy: 'choose a destination with the mitigation; userspace cannot elect it',
    }),
  },
  'caches-differ': {
    general: {
      meaning:
        'The cache geometry (`CLIDR_EL1`, `CCSIDR_EL1`) differs. The guest may use the old geometry for cache maintenance.',
      remedy:
        'Choose a destination of the same CPU, or one whose kernel lets userspace write these registers (Linux 6.3 and later).',
    },
    of: (finding) => ({
      ...wholeValues(finding),
      meaning:
        'the guest saw one cache geometry and will see another; cache maintenance by set and way that follows the old one may miss lines',
      remedy: 'choose a destination of the same CPU, or one whose kernel lets userspace describe the caches',
    }),
  },
  'write-back-refused': {
    general: {
      meaning:
        'Only the destination has the register. The state’s ID registers hide it, and then the VMM writes the value of its new VM to it: KVM refuses the write and the restore fails.',
      remedy:
        'Use the VMM’s option that hides the register’s feature on the destination, if it has one, or another VMM that leaves such registers alone.',
    },
    of: (finding, vmm) => ({
      ...unsetValues(finding),
      meaning: `${vmm} writes its own value to a register that only the destination has, and the state’s ID registers have hidden it`,
      remedy: `none: ${vmm} has no option for it; restart the guest on the destination`,
    }),
  },
  'unannounced-register-absent': {
    general: {
      meaning:
        'The destination has no such register. The field of the ID register that announces it to guests is 0, so only the VMM notices.',
      remedy:
        'Use a VMM that leaves the register out, or remove it from the state (`check --drop-registers`, `snapshot-editor edit-vmstate remove-regs`).',
    },
    of: (finding) => ({
      ...wholeValues(finding),
      meaning: `${finding.announcedBy} is 0, so the guest does not know of the register`,
      remedy: 'use a VMM that leaves the register out where the destination lacks it',
    }),
  },
  'register-absent': {
    general: {
      meaning: 'The guest may use the register, and the destination has no such register.',
      remedy:
        'If the guest’s ID registers do not announce the register’s feature, use a VMM that leaves the register out where the destination lacks it.',
    },
    of: (finding) => ({
      ...wholeValues(finding),
      meaning: 'the guest may use the register; the destination has none',
      remedy:
        'if the guest’s ID registers do not announce its feature, use a VMM that leaves the register out where the destination lacks it',
    }),
  },
  'pmu-register-absent': {
    general: {
      meaning:
        'The source lists the PMU’s registers for every VM, the destination only for a VM with a PMU. A guest without a PMU does not use them.',
      remedy: 'Use a VMM that leaves the PMU’s registers out of the state of a VM without a PMU.',
    },
    of: (finding) => ({
      ...wholeValues(finding),
      meaning: 'the source lists the PMU’s registers; the destination lists them only for a VM with a PMU',
      remedy: 'use a VMM that leaves the PMU’s registers out of the state of a VM without a PMU',
    }),
  },
  'cache-register-absent': {
    general: {
      meaning:
        'The destination does not describe this cache (`CCSIDR_EL1[n]`). A guest looks at it only if `CLIDR_EL1` announces the cache.',
      remedy: 'Use a VMM that leaves the register out where `CLIDR_EL1` does not announce the cache.',
    },
    of: (finding) => ({
      ...wholeValues(finding),
      meaning: 'the destination does not describe this cache; a guest uses it only if CLIDR_EL1 announces it',
      remedy: 'use a VMM that leaves the register out where CLIDR_EL1 does not announce the cache',
    }),
  },
  'timer-register-absent': {
    general: {
      meaning:
        'The destination has the timer and lists no register for it: the guest’s timer starts again from zero.',
      remedy: 'If the guest uses its virtual timer, use a VMM that leaves the register out.',
    },
    of: (finding) => ({
      ...wholeValues(finding),
      meaning: 'the destination has the timer but no register for it; the guest’s timer starts again',
      remedy: 'if the guest uses its virtual timer, use a VMM that leaves the register out',
    }),
  },
  'bitmap-absent': {
    general: {
      meaning:
        'The destination lacks a bitmap of hypercall services. The VM shows none of its services and the destination offers none, so the guest sees no difference.',
      remedy: 'Use a VMM that leaves the register out while it is 0.',
    },
    of: (finding) => ({
      ...wholeValues(finding),
      meaning: 'the VM shows no service of this bitmap, and the destination offers none',
      remedy: `use a VMM that leaves out ${shortName(finding)} while it is 0`,
    }),
  },
  'service-unregistered': {
    general: {
      meaning:
        'The guest may have discovered a hypercall service. The destination provides it, but has no register that says so.',
      remedy: 'Use a VMM that leaves the register out where the destination lacks it.',
    },
    of: (finding) => ({
      source: 'shown',
      destination: NO_REGISTER,
      meaning: `the guest may have discovered ${serviceName(finding)}; the destination provides it, but has no register for it`,
      remedy: `use a VMM that leaves out ${shortName(finding)} where the destination lacks it`,
    }),
  },
  'service-lost': {
    general: {
      meaning:
        'The guest may have discovered a hypercall service that the destination does not provide. The destination lacks the service’s bitmap register as well.',
      remedy:
        'Clear the service’s bit on the source before the first run, and use a VMM that leaves the register out where the destination lacks it.',
    },
    of: (finding) => ({
      source: 'shown',
      destination: NO_REGISTER,
      meaning: `the guest may have discovered ${serviceName(finding)}; the destination does not provide it`,
      remedy: `${hidingText(finding)}, and use a VMM that leaves out ${shortName(finding)} where the destination lacks it`,
    }),
  },
  'service-refused': {
    general: {
      meaning:
        'The guest may have discovered a hypercall service that the destination does not provide: the destination refuses the service’s bit.',
      remedy: 'Clear the service’s bit on the source before the first run.',
    },
    of: (finding) => ({
      source: 'shown',
      destination: 'refused',
      meaning: `the guest may have discovered ${serviceName(finding)}; the destination does not provide it`,
      remedy: hidingText(finding),
    }),
  },
  'field-differs': {
    general: {
      meaning: 'The destination accepts the field’s value, and then shows the guest its own.',
      remedy: 'Write the destination’s value to the field on the source, before the first run.',
    },
    of(finding) {
      const field = fieldOf(finding)
      return {
        source: meaningIn(field, finding.source),
        destination: meaningIn(field, finding.destination),
        meaning: 'the destination accepts the value and shows the guest its own',
        remedy: finding.pin === undefined ? OTHER_HOST : fieldPinText(finding.pin),
      }
    },
  },
  'value-differs': {
    general: {
      meaning: 'The destination accepts the register’s value and then reads another.',
      remedy: 'Choose a destination of the same CPU and kernel.',
    },
    of: (finding) => ({
      ...wholeValues(finding),
      meaning: 'the destination accepts the value and reads another',
      remedy: OTHER_HOST,
    }),
  },
  'service-exposed': {
    general: {
      meaning:
        'A hypercall service was hidden from the guest. The destination always provides it and has no register to hide it.',
      remedy: 'Choose a destination whose kernel has the register.',
    },
    of: (finding) => ({
      source: 'hidden',
      destination: NO_REGISTER,
      meaning: `${serviceName(finding)} was hidden from the guest; the destination provides it, and has no register to hide it`,
      remedy: 'choose a destination whose kernel has the register',
    }),
  },
  'services-appear': {
    general: {
      meaning:
        'The state lacks a bitmap of hypercall services, or the VMM does not carry it. On the destination the guest may discover the services the bitmap shows there by default, and loses them again on the way back.',
      remedy: 'Write 0 to the bitmap on the destination before the first run.',
    },
    of(finding, vmm) {
      const services = serviceNames(BigInt(finding.register.id), BigInt(finding.destination!))
      return {
        ...unsetValues(finding),
        meaning: `${whyUnset(finding, vmm)}; the guest may now discover ${services.join(', ')}, and loses it again on the way back`,
        remedy: `write ${finding.register.name} = ${finding.pin?.value ?? '0x0'} on the destination before the first run`,
      }
    },
  },
  'register-not-restored': {
    general: {
      meaning:
        'The state lacks the register, or the VMM does not carry it: the guest sees the destination’s initial value.',
      remedy:
        'Choose a source whose kernel lists the register or a VMM that carries it; or write the register on the destination before the first run.',
    },
    of: (finding, vmm) => ({
      ...unsetValues(finding),
      meaning:
        finding.announcedBy === undefined
          ? `${whyUnset(finding, vmm)}; the guest sees the destination’s initial value`
          : `${whyUnset(finding, vmm)}; ${finding.announcedBy} is 0, so the guest does not know of the register`,
      remedy:
        finding.announcedBy !== undefined
          ? NOTHING
          : finding.source === null
            ? 'choose a source whose kernel lists the register, or write it on the destination before the first run'
            : 'choose a VMM that carries it',
    }),
  },
  'bitmap-not-restored': {
    general: {
      meaning:
        'The state lacks a bitmap of hypercall services, or the VMM does not carry it. The bitmap is 0 on the destination, so the guest sees no difference.',
      remedy: 'Nothing needs to be done.',
    },
    of: (finding, vmm) => ({
      ...unsetValues(finding),
      meaning: `${whyUnset(finding, vmm)}; it is 0 on the destination, so nothing changes for the guest`,
      remedy: NOTHING,
    }),
  },
  'mitigation-stronger': {
    general: {
      meaning:
        'The destination provides a better mitigation of a Spectre variant than the guest was promised (`KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_n`). The guest loses nothing.',
      remedy: 'Nothing needs to be done.',
    },
    of: (finding) => ({
      ...levels(finding),
      meaning: 'the destination has a better mitigation than the guest was promised; the guest loses nothing',
      remedy: NOTHING,
    }),
  },
  'aarch32-id-differs': {
    general: {
      meaning:
        'An AArch32 ID register differs. The guest has no AArch32 at EL0, where the architecture makes the register UNKNOWN.',
      remedy: 'Nothing needs to be done.',
    },
    of: (finding) => ({
      ...wholeValues(finding),
      meaning: 'the guest has no AArch32 at EL0, where AArch32 ID registers are UNKNOWN',
      remedy: NOTHING,
    }),
  },
  'aarch32-id-refused': {
    general: {
      meaning:
        'The guest has no AArch32 at EL0 and does not use its AArch32 ID registers. The destination has AArch32 and refuses their values all the same.',
      remedy:
        'None on this destination: it accepts only other values. Restart the guest there, or move it to a host without AArch32.',
    },
    of: (finding) => ({
      ...wholeValues(finding),
      meaning: 'the guest does not use AArch32; the destination has AArch32 and refuses the values',
      remedy: 'none: restart the guest there, or move it to a host without AArch32',
    }),
  },
  'aarch32-id-lost': {
    general: {
      meaning:
        'The guest may use AArch32 at EL0, and the destination has none: its AArch32 ID registers read 0, whatever is written to them. `ID_AA64PFR0_EL1.EL0` stops the move for the same reason.',
      remedy:
        'Pin `ID_AA64PFR0_EL1.EL0` to 1 (AArch64 only) before the first run: then the guest never uses AArch32, and these registers mean nothing to it.',
    },
    of: (finding) => ({
      ...wholeValues(finding),
      meaning: 'the destination has no AArch32, and its AArch32 ID registers read 0',
      remedy: 'as for ID_AA64PFR0_EL1.EL0',
    }),
  },
}

const gicText: Readonly<Record<Gic, string>> = { 'gic-v2': 'GICv2', 'gic-v3': 'GICv3' }
const unsavableText: Readonly<Record<Unsavable, string>> = {
  sve: 'SVE',
  'gic-v2': 'a GICv2',
  'has-el2': 'EL2',
  its: 'an ITS',
  'mte-tags': 'memory tags',
}

/** `62.5 MHz` */
function hertzText(value: string): string {
  return `${Number(value) / 1e6} MHz`
}

/** What the guest saw of a mitigation, what it will see, and what can go wrong. */
function mitigationText(finding: RegisterFinding): string {
  const [saw, sees] = Object.values(levels(finding)).map((level) => level.replace(/^\S+ /, ''))
  const call = finding.register.name.replace('KVM_REG_ARM_', '')
  return saw === 'not-required'
    ? `the guest saw ${saw} and does not call ${call}; on the destination it is ${sees}: the guest stays exposed there`
    : `the guest saw ${saw} and may rely on ${call}; on the destination it is ${sees}: its calls protect it less`
}

function wholeValues({ source, destination }: RegisterFinding): { source: string; destination: string } {
  return { source: source ?? NO_REGISTER, destination: destination ?? NO_REGISTER }
}

function unsetValues({ source, destination }: RegisterFinding): { source: string; destination: string } {
  return { source: source ?? 'not in the state', destination: destination ?? NO_REGISTER }
}

function whyUnset({ source }: RegisterFinding, vmm: string): string {
  return source === null ? 'the state lacks it' : `${vmm} does not carry it`
}

function fieldOf({ register, field }: RegisterFinding): Field {
  return differingField(BigInt(register.id), field!)
}

function meaningIn(field: Field, content: string | null): string {
  return content === null ? NO_REGISTER : meaningOf(field, BigInt(content) << BigInt(field.lsb))
}

function numberIn(field: Field, content: string): string {
  return `${fieldValue(field, BigInt(content) << BigInt(field.lsb))}`
}

function fieldPinText({ register, field, value }: Pin): string {
  const number = numberIn(differingField(BigInt(register.id), field!), value)
  return `write ${register.name}.${field} = ${number} before the first run; whether the source accepts it was not tried`
}

/** A PSCI version, `1.1`; other values as a number. */
export function psciText(value: bigint): string {
  return value <= 0xffff_ffffn ? decodePsciVersion(value) : `0x${value.toString(16)}`
}

function levels({ register, source, destination }: RegisterFinding): { source: string; destination: string } {
  const row = workarounds.find((workaround) => workaround.register === BigInt(register.id))
  const level = (value: string | null): string => {
    if (value === null) return NO_REGISTER
    const name = row?.levels.find((entry) => entry.value === BigInt(value))?.name
    return name === undefined ? value : `${value} ${name}`
  }
  return { source: level(source), destination: level(destination) }
}

/** `STD_BMAP` */
function shortName({ register }: RegisterFinding): string {
  return register.name.replace('KVM_REG_ARM_', '')
}

function hidingText({ register, field }: RegisterFinding): string {
  const service = serviceNamed(register.id, field!)
  const bit = service?.bit ?? Number(field!.replace('bit ', ''))
  return `clear bit ${bit} of ${register.name.replace('KVM_REG_ARM_', '')} before the first run`
}

function serviceName({ register, field }: RegisterFinding): string {
  const service = serviceNamed(register.id, field!)
  return service?.name ?? `service ${field!.replace('bit ', '')}`
}

function serviceNamed(register: string, field: string): { name: string; bit: number } | undefined {
  return serviceBitmapOf(BigInt(register))?.services.find(
    ({ kernelName }) => kernelName === `KVM_REG_ARM_${field}`,
  )
}

function serviceNames(register: bigint, bits: bigint): string[] {
  const services = serviceBitmapOf(register)?.services ?? []
  return bits
    .toString(2)
    .split('')
    .toReversed()
    .flatMap((digit, bit) =>
      digit === '1' ? [services.find((service) => service.bit === bit)?.name ?? `service ${bit}`] : [],
    )
}
