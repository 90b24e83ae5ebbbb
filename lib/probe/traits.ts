/** Experiments on scratch VMs that show how a host's KVM behaves where no register or capability reports it. */
import type { SystemFd, VcpuFd } from '../backend.js'
import { workarounds } from '../hypercalls/index.js'
import { check, errnoName } from '../kvm/errors.js'
import {
  arm64Id,
  encodeRegister,
  decodeRegister,
  fieldMask,
  hex,
  isFeatureIdRegister,
  registerField,
  registerName,
  registerWidth,
  sizes,
  timerControls,
  withSize,
} from '../registers/index.js'
import type { ReportedRegister, Traits } from '../report/report.js'
import { acceptedNibbles, sixteen, type WriteRule } from '../report/write-rule.js'
import {
  cpuInputs,
  type DeviceType,
  deviceTypes,
  type ErrnoName,
  errnos,
  featureWord,
  irqTypes,
  KVM_ARM_VCPU_SVE,
  KVM_ARM_VM_SMCCC_CTRL,
  KVM_ARM_VM_SMCCC_FILTER,
  KVM_CREATE_DEVICE_TEST,
  KVM_DEV_ARM_VGIC_CTRL_INIT,
  KVM_DEV_ARM_VGIC_GRP_ADDR,
  KVM_DEV_ARM_VGIC_GRP_CTRL,
  KVM_DEV_ARM_VGIC_GRP_DIST_REGS,
  KVM_VCPU_EVENTS_SIZE,
  KVM_VGIC_V3_ADDR_TYPE_DIST,
  packIrq,
  packSmcccFilter,
  smcccFilterActions,
  type VcpuFeature,
  vcpuFeatures,
} from '../uapi.js'
import { BASE } from './configurations.js'
import { probeHypercalls, probeSErrorDropped, probeSErrorWakes } from './guest-calls.js'
import { probeHiddenRegisters } from './hidden-registers.js'
import { probeLossyRegisters } from './lossy-registers.js'
import { freeze, hasPendingSError, initialise, onVcpu, onVm, pendSError, readRegister } from './rig.js'
import { probePmu, probeTimers } from './vcpu-attributes.js'

const PSCI_VERSION = encodeRegister('KVM_REG_ARM_PSCI_VERSION')
const WORKAROUND_2 = encodeRegister('KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2')
/** A coprocessor without registers. */
const NO_SPACE = 0x12
/** A system register that keeps every value written to it. */
const TPIDR_EL0 = encodeRegister('TPIDR_EL0')
const X14 = encodeRegister('x14')
const X20 = encodeRegister('x20')
const PSTATE = encodeRegister('pstate')
/** AArch32 User mode with N and Z; it does not see x20. */
const USER_WITH_FLAGS = 0x6000_0010n
const ID_AA64PFR0_EL1 = encodeRegister('ID_AA64PFR0_EL1')
const GIC_FIELDS = [ID_AA64PFR0_EL1, encodeRegister('ID_PFR1_EL1')].map((id) => ({
  id,
  mask: fieldMask(registerField(id, 'GIC')),
}))
const ID_AA64PFR1_EL1 = encodeRegister('ID_AA64PFR1_EL1')
const SSBS = fieldMask(registerField(ID_AA64PFR1_EL1, 'SSBS'))

/** Features that are only accepted together with another one. */
const companions = new Map<VcpuFeature, VcpuFeature>([
  ['ptrauth-address', 'ptrauth-generic'],
  ['ptrauth-generic', 'ptrauth-address'],
  ['pmu-v3-strict', 'pmu-v3'],
])

/** Returns the features this host accepts, alone or with the companion they need. */
export function supportedFeatures(kvm: SystemFd, type: bigint): VcpuFeature[] {
  return (Object.keys(vcpuFeatures) as VcpuFeature[]).filter((feature) => {
    const companion = companions.get(feature)
    const sets = companion === undefined ? [[feature]] : [[feature], [feature, companion]]
    return sets.some((set) => initOutcome(kvm, type, featureWord(set)) === 0)
  })
}

/** `KVM_ARM_VCPU_INIT` of vCPU 0 of a new VM. */
function initOutcome(kvm: SystemFd, type: bigint, word: number, target?: number): number {
  return onVm(kvm, type, (vm) =>
    onVcpu(vm, 0, (vcpu) => {
      const init = new Uint32Array(8)
      vm.getPreferredTarget(init)
      return vcpu.init(target ?? init[0]!, [word])
    }),
  )
}

function onBase<T>(kvm: SystemFd, type: bigint, experiment: (vcpu: VcpuFd) => T): T {
  return onVm(kvm, type, (vm) =>
    onVcpu(vm, 0, (vcpu) => {
      initialise(vm, vcpu, BASE)
      return experiment(vcpu)
    }),
  )
}

/** Records on their rows which values the firmware registers of both spaces accept. */
export function probeFirmware(kvm: SystemFd, type: bigint, registers: readonly ReportedRegister[]): void {
  onBase(kvm, type, (vcpu) => {
    for (const register of registers) {
      const write = firmwareRule(kvm, type, vcpu, BigInt(register.id))
      if (write !== undefined) register.write = write
    }
  })
}

const BITS = Array.from({ length: 64 }, (_, bit) => 1n << BigInt(bit))
const PSCI_VERSIONS = [0n, 1n, 2n].flatMap((major) =>
  Array.from({ length: 16 }, (_, minor) => (major << 16n) | BigInt(minor)),
)
const mitigations = new Set(workarounds.map(({ register }) => register))

function firmwareRule(kvm: SystemFd, type: bigint, vcpu: VcpuFd, id: bigint): WriteRule | undefined {
  if (decodeRegister(id).space === 'bitmap') {
    return { rule: 'subset', of: hex(accepted(vcpu, id, BITS).reduce((sum, bit) => sum | bit, 0n)) }
  }
  if (id === PSCI_VERSION) return { rule: 'values', accepts: accepted(vcpu, id, PSCI_VERSIONS).map(hex) }
  if (!mitigations.has(id)) return undefined
  const withoutSsbs = id === WORKAROUND_2 && workaround2WithoutSsbs(kvm, type)
  return { rule: 'checked', accepts: acceptedLevels(vcpu, id), ...(withoutSsbs && { withoutSsbs }) }
}

function accepted(vcpu: VcpuFd, id: bigint, values: readonly bigint[]): bigint[] {
  return values.filter((value) => vcpu.setOneReg(id, value) === 0)
}

function acceptedLevels(vcpu: VcpuFd, id: bigint): string[] {
  return accepted(vcpu, id, [0x0n, 0x1n, 0x2n, 0x3n, 0x10n, 0x11n, 0x12n, 0x13n]).map(hex)
}

export function probeTraits(
  kvm: SystemFd,
  type: bigint,
  supported: readonly VcpuFeature[],
  base: readonly ReportedRegister[],
): Traits {
  return {
    init: probeInit(kvm, type, supported, base),
    bitmapAfterRun: bitmapAfterRun(kvm, type, base),
    idRegisterAfterRun: idRegisterAfterRun(kvm, type, base),
    changedByFirstRun: changedByFirstRun(kvm, type, base),
    changedByVgic: changedByVgic(kvm, type),
    hiddenRegisters: probeHiddenRegisters(kvm, type, supported, base),
    lossyRegisters: probeLossyRegisters(kvm, type, base),
    firmwareWidthChecked: onBase(kvm, type, (vcpu) => {
      // A 32-bit access is harmless on every kernel; a wider one than 64 overflows the stack of those without the check.
      const narrow = withSize(PSCI_VERSION, sizes.U32)
      return vcpu.setOneRegAtNull(narrow) === -errnos.ENOENT
    }),
    setReadsValueFirst: onBase(kvm, type, (vcpu) => ({
      systemRegister: vcpu.setOneRegAtNull(encodeRegister('S3_7_C15_C15_7')) === -errnos.EFAULT,
      unknownSpace: vcpu.setOneRegAtNull(arm64Id(sizes.U64, NO_SPACE, 0)) === -errnos.EFAULT,
    })),
    faultingSetZeroes: onBase(kvm, type, (vcpu) => {
      vcpu.setOneReg(TPIDR_EL0, 1n)
      vcpu.setOneRegAtNull(TPIDR_EL0)
      return readRegister(vcpu, TPIDR_EL0) === 0n
    }),
    narrowedRegisters: narrowedRegisters(kvm, type, supported),
    vcpuEventsNeedInit: onVm(kvm, type, (vm) =>
      onVcpu(vm, 0, (vcpu) => vcpu.getVcpuEvents(new Uint8Array(KVM_VCPU_EVENTS_SIZE)) < 0),
    ),
    sErrorWakes: probeSErrorWakes(kvm, type),
    sErrorDropped: probeSErrorDropped(kvm, type),
    smcccFilter: onVm(kvm, type, (vm) => {
      if (vm.hasDeviceAttr(KVM_ARM_VM_SMCCC_CTRL, KVM_ARM_VM_SMCCC_FILTER) < 0) return null
      const nothingAtZero = packSmcccFilter({ base: 0, nr: 0, action: smcccFilterActions.handle })
      const outcome = vm.setDeviceAttr(KVM_ARM_VM_SMCCC_CTRL, KVM_ARM_VM_SMCCC_FILTER, nothingAtZero)
      return { emptyRangeAtZero: answer(outcome) }
    }),
    hypercalls: probeHypercalls(kvm, type),
    devices: onVm(kvm, type, (vm) =>
      (Object.keys(deviceTypes) as DeviceType[]).filter(
        (device) => vm.createDevice(deviceTypes[device], KVM_CREATE_DEVICE_TEST) === 0,
      ),
    ),
    timers: probeTimers(kvm, type),
    pmu: supported.includes('pmu-v3') ? probePmu(kvm, type) : null,
    runWithoutPmuInit: supported.includes('pmu-v3')
      ? onVm(kvm, type, (vm) =>
          onVcpu(vm, 0, (vcpu) => {
            initialise(vm, vcpu, [...BASE, 'pmu-v3'])
            const outcome = freeze(vcpu)
            return outcome === -errnos.EINTR ? null : answer(outcome)
          }),
        )
      : null,
    vgicAddressCheckedFirst: vgicAddressCheckedFirst(kvm, type),
    irqEventKeepsCount: irqEventKeepsCount(kvm, type),
    irqLineByIndex: irqLineByIndex(kvm, type),
    irqLineChecksInitFirst: irqLineChecksInitFirst(kvm, type),
    gicRevisionKept: gicRevisionKept(kvm, type),
    runWithoutVgicInit: runWithoutVgicInit(kvm, type),
  }
}

function probeInit(
  kvm: SystemFd,
  type: bigint,
  supported: readonly VcpuFeature[],
  base: readonly ReportedRegister[],
): Traits['init'] {
  const bits = Array.from({ length: 32 }, (_, bit) => bit)
  const unknown =
    bits.find((bit) => initOutcome(kvm, type, (1 << bit) >>> 0) === -errnos.ENOENT) ?? bits.length
  return {
    targets: bits.slice(0, 16).filter((target) => initOutcome(kvm, type, featureWord(BASE), target) === 0),
    knownFeatures: unknown,
    supported: [...supported],
    scope: onVm(kvm, type, (vm) =>
      onVcpu(vm, 0, (first) =>
        onVcpu(vm, 1, (second) => {
          initialise(vm, first, BASE)
          return initialise(vm, second, []) === 0 ? 'vcpu' : 'vm'
        }),
      ),
    ),
    powerOff: onVm(kvm, type, (vm) =>
      onVcpu(vm, 0, (vcpu) => {
        initialise(vm, vcpu, BASE)
        return initialise(vm, vcpu, [...BASE, 'power-off']) === 0 ? 'ephemeral' : 'sticky'
      }),
    ),
    leaksRefusedFeatures: onVm(kvm, type, (vm) =>
      onVcpu(vm, 0, (vcpu) => {
        const init = new Uint32Array(8)
        vm.getPreferredTarget(init)
        vcpu.init(init[0]!, [(featureWord(BASE) | (1 << unknown)) >>> 0])
        initialise(vm, vcpu, [])
        // Without psci-0.2 a vCPU has PSCI 0.1, which is the value 1.
        return vcpu.getOneReg(PSCI_VERSION) !== 1n
      }),
    ),
    leaksSve: supported.includes('sve') ? leaksSve(kvm, type) : undefined,
    registerWidth: supported.includes('el1-32bit')
      ? registerWidthScope(kvm, type)
      : registerWidthOfRefused(kvm, type, unknown),
    kept: keptAcrossInit(kvm, type, base),
    keepsSError: keepsSError(kvm, type),
  }
}

/** Every host refuses half of pointer authentication, and a register width that differs from a sibling's. */
function leaksSve(kvm: SystemFd, type: bigint): Traits['init']['leaksSve'] {
  const leaks = (refused: readonly VcpuFeature[]): boolean =>
    onVm(kvm, type, (vm) =>
      onVcpu(vm, 0, (sibling) =>
        onVcpu(vm, 1, (vcpu) => {
          initialise(vm, sibling, BASE)
          initialise(vm, vcpu, refused)
          return initialise(vm, vcpu, BASE) === 0 && vcpu.finalize(KVM_ARM_VCPU_SVE) === 0
        }),
      ),
    )
  const causes = [
    ...(leaks([...BASE, 'sve', 'ptrauth-address']) ? (['ptrauth'] as const) : []),
    ...(leaks([...BASE, 'sve', 'el1-32bit']) ? (['register-width'] as const) : []),
  ]
  return causes.length > 0 ? causes : undefined
}

/** Finds the scope of `el1-32bit` with two vCPUs, the second initialised after the first. */
function registerWidthScope(kvm: SystemFd, type: bigint): Traits['init']['registerWidth'] {
  return onVm(kvm, type, (vm) =>
    onVcpu(vm, 0, (first) =>
      onVcpu(vm, 1, (second) => {
        if (initialise(vm, first, [...BASE, 'el1-32bit']) < 0) return 'every-vcpu'
        return initialise(vm, second, BASE) < 0 ? 'vm' : 'vcpu'
      }),
    ),
  )
}

/**
 * Returns whether a vCPU left with `el1-32bit` prevents others from being without it. On a host without AArch32 at EL1 only an init
 * that is refused for another, unknown feature leaves it set, so this function makes such an init.
 */
function registerWidthOfRefused(
  kvm: SystemFd,
  type: bigint,
  unknown: number,
): Traits['init']['registerWidth'] {
  return onVm(kvm, type, (vm) =>
    onVcpu(vm, 0, (first) =>
      onVcpu(vm, 1, (second) => {
        const init = new Uint32Array(8)
        vm.getPreferredTarget(init)
        first.init(init[0]!, [(featureWord(['el1-32bit']) | (1 << unknown)) >>> 0])
        return initialise(vm, second, BASE) < 0 ? 'every-vcpu' : undefined
      }),
    ),
  )
}

/** A 32-bit vCPU begins in Supervisor mode, which does not see x14. */
function keepsHiddenRegisters(kvm: SystemFd, type: bigint): boolean {
  return onVm(kvm, type, (vm) =>
    onVcpu(vm, 0, (vcpu) => {
      initialise(vm, vcpu, [...BASE, 'el1-32bit'])
      vcpu.setOneReg(X14, 1n << 32n)
      return vcpu.getOneReg(X14) !== 0n
    }),
  )
}

function narrowedRegisters(
  kvm: SystemFd,
  type: bigint,
  supported: readonly VcpuFeature[],
): Traits['narrowedRegisters'] {
  if (supported.includes('el1-32bit') && keepsHiddenRegisters(kvm, type)) return 'visible'
  return onBase(kvm, type, (vcpu) => {
    // Refused where no AArch32 code can run at EL0.
    if (vcpu.setOneReg(PSTATE, USER_WITH_FLAGS) < 0) return undefined
    vcpu.setOneReg(X20, 1n << 32n)
    return vcpu.getOneReg(X20) === 0n ? 'by-flags' : undefined
  })
}

/**
 * Changes every bit that can be changed, or one nibble if not all can, and returns the registers that an init then does not reset.
 * Excludes feature ID registers, except CLIDR_EL1: they belong to the VM and an init keeps them.
 */
function keptAcrossInit(kvm: SystemFd, type: bigint, registers: readonly ReportedRegister[]): string[] {
  return onVm(kvm, type, (vm) =>
    onVcpu(vm, 0, (vcpu) => {
      initialise(vm, vcpu, BASE)
      const changed = registers.filter(({ id, name, value, write }) => {
        const isVms = isFeatureIdRegister(BigInt(id)) && name !== 'CLIDR_EL1'
        const isFirmware = ['firmware', 'bitmap'].includes(decodeRegister(BigInt(id)).space)
        // The timer control shows whether the timer has fired, which depends on the time.
        const isTimed = value === null || timerControls.has(BigInt(id))
        if (name === 'pstate' || isFirmware || isTimed || isVms) return false
        const inverse = BigInt(value) ^ ((1n << BigInt(registerWidth(BigInt(id)))) - 1n)
        const others = isFeatureIdRegister(BigInt(id)) ? otherValues(BigInt(value), write) : []
        return [inverse, ...others].some(
          (other) =>
            vcpu.setOneReg(BigInt(id), other) === 0 && readRegister(vcpu, BigInt(id)) !== BigInt(value),
        )
      })
      initialise(vm, vcpu, BASE)
      return changed
        .filter(({ id, value }) => readRegister(vcpu, BigInt(id)) !== BigInt(value!))
        .map(({ id }) => id)
    }),
  )
}

function keepsSError(kvm: SystemFd, type: bigint): boolean {
  return onVm(kvm, type, (vm) =>
    onVcpu(vm, 0, (vcpu) => {
      initialise(vm, vcpu, BASE)
      freeze(vcpu)
      pendSError(vcpu)
      initialise(vm, vcpu, BASE)
      return hasPendingSError(vcpu)
    }),
  )
}

function bitmapAfterRun(
  kvm: SystemFd,
  type: bigint,
  base: readonly ReportedRegister[],
): Traits['bitmapAfterRun'] {
  const std = base.find((register) => register.name === 'KVM_REG_ARM_STD_BMAP')
  if (std === undefined) return null
  const value = BigInt(std.value!)
  return onBase(kvm, type, (vcpu) => afterRun(vcpu, BigInt(std.id), value, value & (value - 1n)))
}

function idRegisterAfterRun(
  kvm: SystemFd,
  type: bigint,
  base: readonly ReportedRegister[],
): Traits['idRegisterAfterRun'] {
  const [id, value, other] = changeableIdRegister(base)
  return onBase(kvm, type, (vcpu) => afterRun(vcpu, id, value, other))
}

function changedByFirstRun(
  kvm: SystemFd,
  type: bigint,
  registers: readonly ReportedRegister[],
): Traits['changedByFirstRun'] {
  return onBase(kvm, type, (vcpu) => {
    freeze(vcpu)
    return registers
      .filter(({ id }) => isFeatureIdRegister(BigInt(id)))
      .map(({ id, name, value }) => {
        const found = readRegister(vcpu, BigInt(id))
        const mask = found ^ BigInt(value!)
        return { id, name, mask: hex(mask), value: hex(found & mask) }
      })
      .filter(({ mask }) => mask !== '0x0')
  })
}

/** Clears the fields that describe a GIC before a GIC is created (`arch/arm64/kvm/vgic/vgic-init.c:kvm_vgic_create`). */
function changedByVgic(kvm: SystemFd, type: bigint): Traits['changedByVgic'] {
  return onVm(kvm, type, (vm) =>
    onVcpu(vm, 0, (vcpu) => {
      initialise(vm, vcpu, BASE)
      const cleared = GIC_FIELDS.map(({ id, mask }) => {
        const value = vcpu.getOneReg(id)
        if (typeof value === 'bigint') vcpu.setOneReg(id, value & ~mask)
        return { id, before: vcpu.getOneReg(id) }
      })
      const gic = vm.createDevice(deviceTypes.KVM_DEV_TYPE_ARM_VGIC_V3, 0)
      if (typeof gic === 'number') return undefined
      try {
        const changes = cleared.flatMap(({ id, before }) => {
          const after = vcpu.getOneReg(id)
          if (typeof before !== 'bigint' || typeof after !== 'bigint' || after === before) return []
          const mask = after ^ before
          return [{ id: hex(id), name: registerName(id), mask: hex(mask), value: hex(after & mask) }]
        })
        return changes.length > 0 ? changes : undefined
      } finally {
        gic.close()
      }
    }),
  )
}

/** A feature ID register, its value, and another value that is accepted before the run; if none is, one that is refused. */
function changeableIdRegister(
  registers: readonly ReportedRegister[],
): [id: bigint, value: bigint, other: bigint] {
  for (const { id, name, value, write } of registers) {
    // CLIDR_EL1 belongs to each vCPU and never freezes.
    if (!isFeatureIdRegister(BigInt(id)) || name === 'CLIDR_EL1') continue
    // A write that is dropped shows nothing.
    if (write?.rule !== 'nibbles' || write.storedAs !== undefined) continue
    const [other] = otherValues(BigInt(value!), write)
    if (other !== undefined) return [BigInt(id), BigInt(value!), other]
  }
  const value = BigInt(registers.find(({ id }) => id === hex(ID_AA64PFR0_EL1))!.value!)
  return [ID_AA64PFR0_EL1, value, value ^ 1n]
}

/** Returns the accepted values that differ from a given one in a single nibble. */
function otherValues(value: bigint, rule: WriteRule | undefined): bigint[] {
  if (rule?.rule !== 'nibbles') return []
  return acceptedNibbles(rule, value).flatMap((set, nibble) => {
    const shift = BigInt(4 * nibble)
    const rest = value & ~(0xfn << shift)
    return sixteen
      .filter((other) => (set >> other) & 1)
      .map((other) => rest | (BigInt(other) << shift))
      .filter((other) => other !== value)
  })
}

function afterRun(vcpu: VcpuFd, id: bigint, same: bigint, other: bigint): Traits['idRegisterAfterRun'] {
  freeze(vcpu)
  // The run itself may have changed the register.
  const frozen = vcpu.getOneReg(id)
  if (vcpu.setOneReg(id, typeof frozen === 'bigint' ? frozen : same) === -errnos.EBUSY) return 'busy'
  return vcpu.setOneReg(id, other) === -errnos.EBUSY ? 'busy-if-changed' : 'unguarded'
}

/** Returns the state of `WORKAROUND_2` in a VM whose `ID_AA64PFR1_EL1.SSBS` was cleared, if the state differs. */
function workaround2WithoutSsbs(
  kvm: SystemFd,
  type: bigint,
): Extract<WriteRule, { rule: 'checked' }>['withoutSsbs'] {
  return onBase(kvm, type, (vcpu) => {
    const features = vcpu.getOneReg(ID_AA64PFR1_EL1)
    const before = vcpu.getOneReg(WORKAROUND_2)
    if (typeof features !== 'bigint' || (features & SSBS) === 0n) return undefined
    if (vcpu.setOneReg(ID_AA64PFR1_EL1, features & ~SSBS) < 0) return undefined
    const value = vcpu.getOneReg(WORKAROUND_2)
    return typeof value === 'bigint' && value !== before
      ? { value: hex(value), accepts: acceptedLevels(vcpu, WORKAROUND_2) }
      : undefined
  })
}

/** Signals an event that is connected with a shared interrupt (`virt/kvm/eventfd.c:irqfd_wakeup`). */
function irqEventKeepsCount(kvm: SystemFd, type: bigint): Traits['irqEventKeepsCount'] {
  return onVm(kvm, type, (vm) =>
    onVcpu(vm, 0, (vcpu) => {
      const gic = vm.createDevice(deviceTypes.KVM_DEV_TYPE_ARM_VGIC_V3, 0)
      if (typeof gic === 'number') return undefined
      const event = check(kvm.createEvent(), { syscall: 'eventfd' })
      try {
        initialise(vm, vcpu, BASE)
        gic.setDeviceAttr(KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_VGIC_CTRL_INIT, null)
        check(vm.irqFd(event, 0, 0, null), { syscall: 'KVM_IRQFD' })
        event.signal(1n)
        return event.take() === 1n ? true : undefined
      } finally {
        event.close()
        gic.close()
      }
    }),
  )
}

/** Raises an input of vCPU 0 in a VM whose only vCPU has the id 1. */
function irqLineByIndex(kvm: SystemFd, type: bigint): Traits['irqLineByIndex'] {
  return onVm(kvm, type, (vm) =>
    onVcpu(vm, 1, () =>
      vm.irqLine(packIrq({ type: irqTypes.cpu, vcpu: 0, number: cpuInputs.irq }), 0) === 0 ? true : undefined,
    ),
  )
}

/** Raises a shared interrupt that cannot be, of a GIC that is not initialised. */
function irqLineChecksInitFirst(kvm: SystemFd, type: bigint): Traits['irqLineChecksInitFirst'] {
  return onVm(kvm, type, (vm) => {
    const gic = vm.createDevice(deviceTypes.KVM_DEV_TYPE_ARM_VGIC_V3, 0)
    if (typeof gic === 'number') return undefined
    try {
      const outcome = vm.irqLine(packIrq({ type: irqTypes.spi, vcpu: 0, number: 0 }), 0)
      return outcome === -errnos.EBUSY ? true : undefined
    } finally {
      gic.close()
    }
  })
}

/** Sets the distributor's address twice, the second time to an unaligned one. */
function vgicAddressCheckedFirst(kvm: SystemFd, type: bigint): Traits['vgicAddressCheckedFirst'] {
  return onVm(kvm, type, (vm) => {
    const gic = vm.createDevice(deviceTypes.KVM_DEV_TYPE_ARM_VGIC_V3, 0)
    if (typeof gic === 'number') return undefined
    try {
      const outcomes = [0x800_0000n, 0x800_1000n].map((address) =>
        gic.setDeviceAttr(
          KVM_DEV_ARM_VGIC_GRP_ADDR,
          KVM_VGIC_V3_ADDR_TYPE_DIST,
          new Uint8Array(BigUint64Array.of(address).buffer),
        ),
      )
      return outcomes[1] === -errnos.EINVAL ? true : undefined
    } finally {
      gic.close()
    }
  })
}

/** GICD_IIDR: product of KVM, implementer Arm, and a revision that no kernel has. */
const GICD_IIDR = 0x8n
const UNKNOWN_REVISION = 0x4b00_f43b

/** Writes a revision that no kernel has (`arch/arm64/kvm/vgic/vgic-mmio-v3.c:vgic_mmio_uaccess_write_v3_misc`). */
function gicRevisionKept(kvm: SystemFd, type: bigint): Traits['gicRevisionKept'] {
  return onVm(kvm, type, (vm) =>
    onVcpu(vm, 0, (vcpu) => {
      const gic = vm.createDevice(deviceTypes.KVM_DEV_TYPE_ARM_VGIC_V3, 0)
      if (typeof gic === 'number') return undefined
      try {
        initialise(vm, vcpu, BASE)
        gic.setDeviceAttr(KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_VGIC_CTRL_INIT, null)
        const revision = new Uint8Array(Uint32Array.of(UNKNOWN_REVISION).buffer)
        return gic.setDeviceAttr(KVM_DEV_ARM_VGIC_GRP_DIST_REGS, GICD_IIDR, revision) === 0 ? true : undefined
      } finally {
        gic.close()
      }
    }),
  )
}

function runWithoutVgicInit(kvm: SystemFd, type: bigint): Traits['runWithoutVgicInit'] {
  return onVm(kvm, type, (vm) =>
    onVcpu(vm, 0, (vcpu) => {
      const gic = vm.createDevice(deviceTypes.KVM_DEV_TYPE_ARM_VGIC_V3, 0)
      if (typeof gic === 'number') return null
      try {
        initialise(vm, vcpu, BASE)
        const outcome = freeze(vcpu)
        if (outcome === -errnos.EINTR) return null
        return { errno: answer(outcome), killsVm: vcpu.getOneReg(PSCI_VERSION) === -errnos.EIO }
      } finally {
        gic.close()
      }
    }),
  )
}

function answer(outcome: number): ErrnoName {
  return errnoName(outcome) as ErrnoName
}
