/** The VM that each VMM makes on both sides, and what follows for the move. */
import { withoutMachine } from '../../simulator/fixture.js'
import assert from 'node:assert/strict'
import { describe, test } from 'vitest'
import { builtInReport, simulator } from '../../../lib/hosts/index.js'
import { openKvm } from '../../../lib/kvm/index.js'
import { captureHost } from '../../../lib/migration/capture.js'
import { type MoveVerdict, verdict } from '../../../lib/migration/verdict.js'
import { factsOfKvm, factsOfReport } from '../../../lib/migration/vmm/facts.js'
import { type VmmName, vmmNames, vmmRules } from '../../../lib/migration/vmm/names.js'
import { type VmmVm, vmOn } from '../../../lib/migration/vmm/rules.js'
import { findingWords } from '../../../lib/migration/words.js'
import type { Report } from '../../../lib/report/report.js'
import { type Capability, errnos, type VcpuFeature } from '../../../lib/uapi.js'
import { encodeRegister } from '../../../lib/registers/index.js'
import { breakBackend, type Fault } from '../../conformance/broken-kernel.js'

/** A recorded host, as its kernel would show it without some vCPU features. */
function without(name: string, ...features: VcpuFeature[]): Report {
  const report = builtInReport(name)
  const hidden: Partial<Record<VcpuFeature, Capability>> = {
    sve: 'KVM_CAP_ARM_SVE',
    'pmu-v3': 'KVM_CAP_ARM_PMU_V3',
    'ptrauth-address': 'KVM_CAP_ARM_PTRAUTH_ADDRESS',
    'ptrauth-generic': 'KVM_CAP_ARM_PTRAUTH_GENERIC',
  }
  report.traits.init.supported = report.traits.init.supported.filter((one) => !features.includes(one))
  report.configurations = report.configurations.filter((one) =>
    one.features.every((feature) => !features.includes(feature)),
  )
  for (const feature of features) {
    const capability = hidden[feature]
    if (capability !== undefined) report.capabilities[capability] = [0, 0]
  }
  return report
}

/** The host with a GICv2 in place of its GICv3. */
function withGicV2(name: string): Report {
  const report = builtInReport(name)
  report.traits.devices = ['KVM_DEV_TYPE_VFIO', 'KVM_DEV_TYPE_ARM_VGIC_V2']
  return report
}

/** The host with a counter of this frequency, in Hz. */
function withCounter(name: string, frequency: number): Report {
  const report = builtInReport(name)
  const id = `0x${encodeRegister('CNTFRQ_EL0').toString(16)}`
  report.guestReads!.find((read) => read.id === id)!.value = `0x${frequency.toString(16)}`
  report.cpus = { probed: 0, kinds: [{ cpus: '0-1', midr: '0x414fd0c1', revidr: '0x0', caches: [] }] }
  return report
}

/** A host of which neither vCPU features nor devices nor the machine are known. */
function unknownHost(name: string): Report {
  const report = without(name, 'sve', 'pmu-v3', 'ptrauth-address', 'ptrauth-generic')
  report.traits.init.unknown = ['sve', 'pmu-v3', 'ptrauth-address', 'ptrauth-generic']
  delete report.traits.devices
  return withoutMachine(report)
}

interface How {
  vmm: VmmName
  features?: VcpuFeature[]
  /** Features of the destination's VM alone. */
  to?: VcpuFeature[]
  fault?: Fault
}

function move(
  from: Report | string,
  to: Report | string,
  { vmm, features, to: only, fault = {} }: How,
): MoveVerdict {
  const [one, other] = [from, to].map((host) => (typeof host === 'string' ? builtInReport(host) : host)) as [
    Report,
    Report,
  ]
  const rules = vmmRules(vmm)
  using sourceKvm = openKvm(simulator(one))
  using kvm = openKvm(breakBackend(simulator(other), fault))
  const source = vmOn(rules, factsOfReport(one), features)
  const destination = vmOn(rules, factsOfReport(other), only ?? features)
  const state = captureHost(sourceKvm, { features: source.features })
  return verdict(state, kvm, rules, { source, sourceKvm, destination })
}

const stoppedBy = ({ findings }: MoveVerdict): string[] =>
  findings
    .filter(({ stops }) => stops)
    .map(({ register, field, code }) =>
      register === undefined ? code : [register.name, ...(field === undefined ? [] : [field])].join('.'),
    )

const all: VcpuFeature[] = ['psci-0.2', 'pmu-v3', 'sve', 'ptrauth-address', 'ptrauth-generic']
const MAX = 'linux-6.12-max'
const N1 = 'linux-6.12-neoverse-n1'

/** The remedy for the newer PSCI version of 7.2. */
function remedy(vmm: VmmName): string {
  const found = move('linux-7.2-neoverse-n1', N1, { vmm })
  return findingWords(
    found.findings.find(({ code }) => code === 'psci-version-refused')!,
    found.vmm,
  ).remedy
}

/** The remedy for a field that Neoverse N1 lacks. */
function remedyFrom(kernel: string): string {
  const found = move(`linux-${kernel}-max`, `linux-${kernel}-neoverse-n1`, { vmm: 'strict' })
  return findingWords(
    found.findings.find(({ field }) => field === 'RNDR')!,
    'strict',
  ).remedy
}

describe('the VM of a VMM', () => {
  const made: Record<VmmName, [max: VcpuFeature[], n1: VcpuFeature[]]> = {
    strict: [['psci-0.2'], ['psci-0.2']],
    'qemu@11.1': [all, ['psci-0.2', 'pmu-v3']],
    'qemu@10.0': [all, ['psci-0.2', 'pmu-v3']],
    qemu: [all, ['psci-0.2', 'pmu-v3']],
    'firecracker@1.7': [['psci-0.2'], ['psci-0.2']],
    'firecracker@1.6': [['psci-0.2'], ['psci-0.2']],
    firecracker: [['psci-0.2'], ['psci-0.2']],
    'cloud-hypervisor@53': [
      ['psci-0.2', 'pmu-v3', 'sve'],
      ['psci-0.2', 'pmu-v3'],
    ],
    'cloud-hypervisor@52': [
      ['psci-0.2', 'pmu-v3', 'sve'],
      ['psci-0.2', 'pmu-v3'],
    ],
    'cloud-hypervisor': [
      ['psci-0.2', 'pmu-v3', 'sve'],
      ['psci-0.2', 'pmu-v3'],
    ],
    crosvm: [
      ['psci-0.2', 'pmu-v3', 'ptrauth-address', 'ptrauth-generic'],
      ['psci-0.2', 'pmu-v3'],
    ],
  }
  for (const vmm of vmmNames()) {
    test(`of ${vmm} has the features of its host, by the report as by KVM`, () => {
      for (const [index, host] of [MAX, N1].entries()) {
        using kvm = openKvm(simulator(host))
        const vm = vmOn(vmmRules(vmm), factsOfReport(builtInReport(host)))
        assert.deepEqual(vm.features, made[vmm][index])
        assert.deepEqual(vmOn(vmmRules(vmm), factsOfKvm(kvm)), { ...vm, counterFrequency: undefined })
        assert.equal(vm.gic, vmm === 'strict' ? 'none' : 'gic-v3')
      }
    })
  }

  test('has a GICv2 where KVM makes no other, if the VMM can use one', () => {
    const facts = factsOfReport(withGicV2(N1))
    const gics = vmmNames().map((vmm): [string, VmmVm['gic']] => [vmm, vmOn(vmmRules(vmm), facts).gic])
    for (const [vmm, gic] of gics) {
      assert.equal(gic, /strict|cloud/.test(vmm) ? 'none' : 'gic-v2', vmm)
    }
  })

  test('is what --features say, also where they are none', () => {
    assert.deepEqual(vmOn(vmmRules('qemu'), factsOfReport(builtInReport(MAX)), ['psci-0.2']).features, [
      'psci-0.2',
    ])
  })
})

describe('a move by QEMU', () => {
  test('lets a VM with a PMU go from 5.10, whose kernel lists the PMU for every VM', () => {
    for (const to of ['6.12', '6.18', '7.2']) {
      for (const vmm of ['qemu@11.1', 'qemu@10.0'] as const) {
        const found = move('linux-5.10-neoverse-n1', `linux-${to}-neoverse-n1`, { vmm })
        assert.deepEqual([found.possible, stoppedBy(found)], [true, []], `${to} ${vmm}`)
      }
    }
  })

  test('fails from a host without SVE to one with it, and sve=off there lets it succeed', () => {
    const source = without(MAX, 'sve')
    const found = move(source, MAX, { vmm: 'qemu' })
    assert.deepEqual(stoppedBy(found), ['ID_AA64PFR0_EL1.SVE'])
    const finding = found.findings.find(({ stops }) => stops)
    assert.equal(
      findingWords(finding!, found.vmm).remedy,
      'start the VM on the destination with -cpu host,sve=off',
    )
    const off = all.filter((feature) => feature !== 'sve')
    assert.equal(move(source, MAX, { vmm: 'qemu', to: off }).possible, true)
  })

  test('fails from a host without pointer authentication to one with it, and pauth=off there lets it succeed', () => {
    const source = without('linux-6.18-max', 'ptrauth-address', 'ptrauth-generic')
    const found = move(source, 'linux-6.18-max', { vmm: 'qemu' })
    assert.ok(
      stoppedBy(found).every((name) => name.startsWith('ID_AA64ISAR1_EL1.')),
      stoppedBy(found).join(),
    )
    const finding = found.findings.find(({ stops }) => stops)
    assert.equal(
      findingWords(finding!, found.vmm).remedy,
      'start the VM on the destination with -cpu host,pauth=off',
    )
    const off: VcpuFeature[] = ['psci-0.2', 'pmu-v3', 'sve']
    assert.equal(move(source, 'linux-6.18-max', { vmm: 'qemu', to: off }).possible, true)
  })

  test('lists what a destination without the features lacks', () => {
    const found = move(MAX, without(MAX, 'sve'), { vmm: 'qemu' })
    const registers = new Set(stoppedBy(found).map((name) => name.split('.')[0]))
    assert.deepEqual(registers, new Set(['ID_AA64PFR0_EL1', 'ID_AA64ZFR0_EL1', 'ZCR_EL1']))
    assert.ok(found.registers.total > 300)
    const pmu = move(N1, without(N1, 'pmu-v3'), { vmm: 'qemu' })
    assert.ok(stoppedBy(pmu).filter((name) => name.startsWith('PM')).length > 70)
    const lost = pmu.findings.find(({ register }) => register?.name === 'PMCR_EL0')
    assert.equal(findingWords(lost!, pmu.vmm).remedy, 'start the VM on the source with -cpu host,pmu=off')
  })

  test('leaves the vector lengths of the destination: it restores, and breaks the guest', () => {
    const narrow = builtInReport(MAX)
    for (const { added } of narrow.configurations.flatMap((one) => ('added' in one ? [one] : []))) {
      for (const register of added) if (register.name === 'KVM_REG_ARM64_SVE_VLS') register.value = '0x1'
    }
    const found = move(MAX, narrow, { vmm: 'qemu' })
    assert.deepEqual([found.restores, found.possible], [true, false])
    const [finding] = found.findings
    assert.deepEqual([finding?.code, finding?.severity], ['vector-lengths-change', 'guest-broken'])
    assert.equal(
      findingWords(finding!, found.vmm).remedy,
      'start the VM on the source with -cpu host,sve128=on',
    )
    const strict = move(MAX, narrow, { vmm: 'strict', features: ['psci-0.2', 'sve'] })
    assert.ok(stoppedBy(strict).includes('KVM_REG_ARM64_SVE_VLS'))
  })

  test('fails between a GICv2 and a GICv3 both ways', () => {
    for (const [from, to] of [
      [builtInReport(N1), withGicV2(N1)],
      [withGicV2(N1), builtInReport(N1)],
    ] as const) {
      const found = move(from, to, { vmm: 'qemu' })
      assert.deepEqual([found.possible, stoppedBy(found)], [false, ['interrupt-controller-differs']])
    }
  })

  test('writes back what only the destination has, and fails where that is refused', () => {
    const id = encodeRegister('OSLSR_EL1')
    const fault: Fault = {
      vcpu: { setOneReg: (real, wanted, value) => (wanted === id ? -errnos.ENOENT : real(wanted, value)) },
    }
    const move510 = (vmm: VmmName): MoveVerdict =>
      move('linux-5.10-neoverse-n1', 'linux-6.12-neoverse-n1', {
        vmm,
        fault,
        features: ['psci-0.2', 'pmu-v3'],
      })
    assert.deepEqual(stoppedBy(move510('qemu')), ['OSLSR_EL1'])
    assert.ok(!stoppedBy(move510('firecracker')).includes('OSLSR_EL1'))
  })

  test('names kvm-psci-version where the version has it, and no remedy where not', () => {
    assert.equal(remedy('qemu@11.1'), 'start the VM on the source with -cpu host,kvm-psci-version=1.1')
    assert.match(remedy('qemu@10.0'), /^none: qemu@10\.0 has no option for it/)
    assert.match(remedy('firecracker'), /^put KVM_REG_ARM_PSCI_VERSION = 0x10001 into the VM’s CPU template/)
    assert.match(
      remedy('strict'),
      /^write KVM_REG_ARM_PSCI_VERSION = 0x10001 before the first run; the source accepts/,
    )
  })
})

describe('a move by other VMMs', () => {
  test('loses the vector state by crosvm, whatever it holds', () => {
    const found = move(MAX, MAX, { vmm: 'crosvm', features: ['psci-0.2', 'sve'] })
    assert.deepEqual([found.possible, found.findings.map(({ code }) => code)], [false, ['vector-state-lost']])
  })

  test('fails where the version cannot save SVE', () => {
    for (const [vmm, features, possible] of [
      ['cloud-hypervisor@52', undefined, false],
      ['cloud-hypervisor@53', undefined, true],
      ['firecracker@1.6', ['psci-0.2', 'sve'], false],
      ['firecracker@1.7', ['psci-0.2', 'sve'], true],
    ] as const) {
      const found = move(MAX, MAX, { vmm, ...(features && { features: [...features] }) })
      assert.equal(found.possible, possible, vmm)
      assert.deepEqual(stoppedBy(found), possible ? [] : ['save-refused'])
    }
  })

  test('fails without a GICv3 by cloud-hypervisor, and cannot save a GICv2 by crosvm', () => {
    assert.deepEqual(stoppedBy(move(N1, withGicV2(N1), { vmm: 'cloud-hypervisor' })), [
      'interrupt-controller-missing',
    ])
    assert.deepEqual(stoppedBy(move(withGicV2(N1), withGicV2(N1), { vmm: 'crosvm' })), ['save-refused'])
    assert.deepEqual(stoppedBy(move(N1, withGicV2(N1), { vmm: 'firecracker' })), [
      'interrupt-controller-differs',
    ])
  })

  test('names the registers beside the feature the destination lacks', () => {
    const found = move(MAX, without(MAX, 'sve'), { vmm: 'firecracker', features: ['psci-0.2', 'sve'] })
    assert.equal(found.findings[0]!.code, 'features-refused')
    const names = stoppedBy(found)
    for (const name of ['z0', 'p15', 'ffr', 'ZCR_EL1', 'ID_AA64PFR0_EL1.SVE'])
      assert.ok(names.includes(name), name)
  })

  test('says of TCR2_EL1 that the guest does not know of it', () => {
    const found = move(N1, 'linux-6.18-neoverse-n1', { vmm: 'strict' })
    const finding = found.findings.find(({ register }) => register?.name === 'TCR2_EL1')!
    assert.match(
      findingWords(finding, 'strict').meaning,
      /ID_AA64MMFR3_EL1\.TCRX is 0, so the guest does not know of the register/,
    )
  })

  test('tries a remedy on the source, and says that there is none where it is refused', () => {
    assert.match(
      remedyFrom('6.1'),
      /^none: the source does not accept ID_AA64ISAR0_EL1\.RNDR = 0; restart the guest/,
    )
    assert.equal(
      remedyFrom('7.2'),
      'write ID_AA64ISAR0_EL1.RNDR = 0 before the first run; the source accepts it',
    )
  })
})

describe('a counter of another frequency', () => {
  const [slow, fast] = [withCounter(N1, 62_500_000), withCounter(N1, 1_000_000_000)]

  test('breaks the clock of the guest, or is refused', () => {
    const found = move(slow, fast, { vmm: 'qemu' })
    assert.deepEqual([found.restores, found.possible, found.unknown], [true, false, []])
    assert.equal(
      findingWords(found.findings[0]!, found.vmm).meaning,
      'the guest’s clock and timers run at 16.000 times their speed',
    )
    assert.equal(move(slow, slow, { vmm: 'qemu' }).possible, true)
    assert.deepEqual(stoppedBy(move(slow, fast, { vmm: 'cloud-hypervisor@53' })), ['counter-refused'])
    assert.deepEqual(stoppedBy(move(slow, fast, { vmm: 'cloud-hypervisor@52' })), [])
  })
})

describe('the VM of QEMU with default options', () => {
  // Without a PMU such a move fails: Linux 5.10 lists the registers of a PMU for every vCPU.
  for (const kernel of ['6.12', '6.18', '7.2']) {
    test(`goes from Linux 5.10 to ${kernel} on the same CPU`, () => {
      const found = move('linux-5.10-neoverse-n1', `linux-${kernel}-neoverse-n1`, { vmm: 'qemu@11.1' })
      assert.deepEqual([found.possible, found.unknown], [true, []])
      assert.ok(found.features.source.includes('pmu-v3'))
    })
  }

  test('gets remedies that can be carried out on its way to a lesser CPU', () => {
    const found = move('linux-6.1-max', 'linux-6.1-neoverse-n1', { vmm: 'qemu' })
    const remedies = found.findings
      .filter(({ code }) => code === 'field-refused')
      .map((finding) => findingWords(finding, found.vmm).remedy)
    assert.ok(remedies.length > 10)
    for (const advice of remedies) {
      assert.match(
        advice,
        /^none: qemu@11\.1 has no option for it; restart the guest|^start the VM .*-cpu host,/,
      )
    }
  })
})

describe('a register that a newer kernel lists with a PMU', () => {
  // PMMIR_EL1 is in the list from Linux 7.3 on.
  const newer = builtInReport('linux-7.2-neoverse-n1')
  const id = `0x${encodeRegister('PMMIR_EL1').toString(16)}`
  for (const configuration of newer.configurations) {
    if ('refused' in configuration || !configuration.features.includes('pmu-v3')) continue
    const index = newer.registers.length + configuration.added.length - configuration.removed.length
    configuration.added.push({ id, name: 'PMMIR_EL1', value: '0x0', index })
  }
  for (const vmm of ['qemu@10.0', 'qemu@11.1', 'firecracker', 'strict'] as const) {
    test(`stops a VM with a PMU on its way to an older kernel under ${vmm}, and no other VM`, () => {
      const features: VcpuFeature[] = ['psci-0.2', 'pmu-v3']
      const found = move(newer, 'linux-7.2-neoverse-n1', { vmm, features })
      assert.deepEqual(stoppedBy(found), ['PMMIR_EL1'])
      assert.deepEqual([found.restores, found.possible], [false, false])
      assert.ok(move(newer, 'linux-7.2-neoverse-n1', { vmm, features: ['psci-0.2'] }).possible)
      assert.ok(move(newer, newer, { vmm, features }).possible)
    })
  }
})

describe('what a report does not say', () => {
  test('is counted as unknown on both sides', () => {
    const found = move(unknownHost(N1), unknownHost(N1), { vmm: 'qemu' })
    assert.deepEqual(found.unknown, [
      'source-features',
      'destination-features',
      'source-interrupt-controller',
      'destination-interrupt-controller',
      'source-counter-frequency',
      'destination-counter-frequency',
      'source-guest-reads',
      'destination-guest-reads',
      'source-cpu-kinds',
      'destination-cpu-kinds',
    ])
    const several = builtInReport(N1)
    const kind = { midr: '0x414fd0c1', revidr: '0x0', caches: [] }
    several.cpus = {
      probed: 0,
      kinds: [
        { ...kind, cpus: '0-3' },
        { ...kind, midr: '0x410fd034', cpus: '4-7' },
      ],
    }
    assert.deepEqual(move(several, several, { vmm: 'strict' }).unknown, [
      'source-other-cpus',
      'destination-other-cpus',
    ])
    const known = withCounter(N1, 62_500_000)
    assert.deepEqual(move(known, known, { vmm: 'qemu' }).unknown, [])
    assert.deepEqual(move(unknownHost(N1), N1, { vmm: 'strict' }).unknown, [
      'source-counter-frequency',
      'source-guest-reads',
      'source-cpu-kinds',
    ])
    assert.deepEqual(move(unknownHost(N1), known, { vmm: 'firecracker' }).unknown, [
      'source-interrupt-controller',
      'source-counter-frequency',
      'source-guest-reads',
      'source-cpu-kinds',
    ])
  })

  test('counts a fingerprint’s page size, address space and memory tagging as not known', () => {
    const report = builtInReport(N1)
    report.origin = { kind: 'fingerprint', like: report.host.release }
    delete report.capabilities.KVM_CAP_ARM_VM_IPA_SIZE
    assert.deepEqual(move(N1, report, { vmm: 'strict' }).unknown, [
      'destination-page-size',
      'destination-address-space',
    ])
    assert.deepEqual(move(report, N1, { vmm: 'strict' }).unknown, [
      'source-page-size',
      'source-address-space',
    ])
    const tagging = builtInReport('linux-6.12-max-qemu-11')
    const silent: Report = structuredClone(tagging)
    delete silent.capabilities.KVM_CAP_ARM_MTE
    using kvm = openKvm(simulator(tagging))
    const state = captureHost(kvm)
    state.vm.capabilities = ['KVM_CAP_ARM_MTE']
    using there = openKvm(simulator(silent))
    const rules = vmmRules('strict')
    const { unknown } = verdict(state, there, rules, { destination: vmOn(rules, factsOfReport(silent)) })
    assert.ok(unknown.includes('destination-memory-tagging'))
  })
})
