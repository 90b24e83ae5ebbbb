import { encodeRegister, hex } from '../../lib/registers/index.js'
import type { Report } from '../../lib/report/report.js'

const core = () =>
  [...Array.from({ length: 31 }, (_, n) => `x${n}`), 'sp', 'pc', 'pstate'].map((name) => ({
    id: hex(encodeRegister(name)),
    name,
    value: '0x0',
  }))

/** A report with an entry of each kind, small enough to read. Not of a real host. */
export function sampleReport(): Report {
  return {
    format: 'kvm-arm64/report',
    version: 2,
    probedAt: '2026-01-02T03:04:05.678Z',
    host: { release: '6.12.0-sample', build: '#1 SMP' },
    origin: { kind: 'kernel' },
    capabilities: { KVM_CAP_ARM_VM_IPA_SIZE: [44, 44], KVM_CAP_ARM_SVE: [1, 1] },
    vcpuMmapSize: 8192,
    preferredTarget: 5,
    registers: [
      ...core(),
      {
        id: '0x6030000000140000',
        name: 'KVM_REG_ARM_PSCI_VERSION',
        value: '0x10001',
        write: { rule: 'values', accepts: ['0x2', '0x10000', '0x10001'] },
      },
      {
        id: '0x6030000000140001',
        name: 'KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_1',
        value: '0x2',
        write: { rule: 'checked', accepts: ['0x0', '0x1', '0x2'] },
      },
      {
        id: '0x6030000000160000',
        name: 'KVM_REG_ARM_STD_BMAP',
        value: '0x1',
        write: { rule: 'subset', of: '0x1' },
      },
      { id: '0x603000000013df1a', name: 'KVM_REG_ARM_TIMER_CNT', value: null },
      {
        id: '0x603000000013c020',
        name: 'ID_AA64PFR0_EL1',
        value: '0x11',
        mask: '0xf',
        write: { rule: 'nibbles', accepts: { '3:0': '1-2' } },
      },
      {
        id: '0x603000000013c000',
        name: 'MIDR_EL1',
        value: '0x413fd0c1',
        write: { rule: 'fixed', errno: 'EINVAL' },
      },
    ],
    configurations: [
      {
        features: ['psci-0.2', 'sve'],
        removed: ['0x603000000013c000'],
        added: [{ id: '0x606000000015ffff', name: 'KVM_REG_ARM64_SVE_VLS', value: '0x1', index: 0 }],
        changed: [
          {
            id: '0x603000000013c020',
            name: 'ID_AA64PFR0_EL1',
            value: '0x12',
            write: { rule: 'fixed', errno: 'EINVAL' },
          },
        ],
      },
      { features: ['psci-0.2', 'el1-32bit', 'sve'], refused: 'EINVAL' },
    ],
    traits: {
      init: {
        targets: [5],
        knownFeatures: 7,
        supported: ['power-off', 'el1-32bit', 'psci-0.2', 'sve'],
        scope: 'vm',
        powerOff: 'ephemeral',
        leaksRefusedFeatures: false,
        keepsSError: true,
      },
      bitmapAfterRun: 'busy-if-changed',
      idRegisterAfterRun: 'busy-if-changed',
      lossyRegisters: [],
      firmwareWidthChecked: true,
      setReadsValueFirst: { systemRegister: true, unknownSpace: true },
      faultingSetZeroes: false,
      vcpuEventsNeedInit: true,
      sErrorWakes: false,
      smcccFilter: { emptyRangeAtZero: 'EEXIST' },
      hypercalls: {
        services: ['trng-v1.0', 'pv-time', 'features', 'ptp'],
        smc: true,
        affinityMasked: false,
        sameAffinity: 'first',
      },
      devices: [],
      timers: { interrupts: [27, 30], scope: 'vm' },
      pmu: null,
      runWithoutPmuInit: null,
      runWithoutVgicInit: { errno: 'ENXIO', killsVm: true },
    },
  }
}
