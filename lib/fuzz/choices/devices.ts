/** Calls about devices, and about attributes of VMs, vCPUs and devices. */
import { hex } from '../../registers/index.js'
import type { Call } from '../../trace/index.js'
import {
  deviceTypes,
  irqTypes,
  KVM_ARM_VCPU_PMU_V3_CTRL,
  KVM_ARM_VCPU_PMU_V3_FILTER,
  KVM_ARM_VCPU_PVTIME_CTRL,
  KVM_ARM_VCPU_TIMER_CTRL,
  KVM_CREATE_DEVICE_TEST,
  KVM_DEV_ARM_VGIC_GRP_ADDR,
  KVM_DEV_ARM_VGIC_GRP_CTRL,
  KVM_DEV_ARM_VGIC_GRP_NR_IRQS,
  KVM_VGIC_V3_ADDR_TYPE_DIST,
  KVM_VGIC_V3_ADDR_TYPE_REDIST,
  packIrq,
  SMCCC_FILTER_SIZE,
} from '../../uapi.js'
import type { Context, KnownVcpu } from '../model.js'
import type { Random } from '../random.js'
import { DISTRIBUTOR, GIC_FIELD, ID_AA64PFR0_EL1, littleEndian, PAGE, REDISTRIBUTORS } from '../vocabulary.js'

export function createDevice({ random, model }: Context, { vm: { vm, vcpus, hasFailed } }: KnownVcpu): Call {
  // On Linux 6.12, a GIC made after a refused run causes an oops at the next init: its timers are enabled, and there is nothing to
  // reset.
  const type = hasFailed || random.oneIn(4) ? 99 : deviceTypes.KVM_DEV_TYPE_ARM_VGIC_V3
  const device = model.next('device')
  if (random.oneIn(4)) {
    const tested = random.pick([99, ...Object.values(deviceTypes)])
    return { op: 'create_device', vm, device, type: tested, flags: KVM_CREATE_DEVICE_TEST }
  }
  const call: Call = { op: 'create_device', vm, device, type, flags: 0 }
  const features = model.seen.get(ID_AA64PFR0_EL1)
  if (vcpus.length === 0 || features === undefined || random.oneIn(2)) return call
  // The effect of a GIC is visible only if userspace has declared before that there is none.
  const { vcpu } = random.pick(vcpus)
  const register = { vcpu, id: hex(ID_AA64PFR0_EL1) }
  model.plan(call, { op: 'get_one_reg', ...register })
  return { op: 'set_one_reg', ...register, value: hex(features & ~GIC_FIELD) }
}

/** Half of the calls name an interrupt that the VM could have. */
export function irqLine({ random }: Context, { vm: { vm, vcpus, device } }: KnownVcpu): Call {
  const isOdd = random.oneIn(2)
  const type = isOdd
    ? random.below(4)
    : device === null
      ? irqTypes.cpu
      : random.pick([irqTypes.spi, irqTypes.ppi])
  const number = isOdd
    ? random.pick([0, 1, 2, 15, 16, 27, 31, 32, 255, 256, 1019, 1020, 8191, 8192, 0xffff])
    : {
        [irqTypes.cpu]: random.below(2),
        [irqTypes.spi]: 32 + random.below(32),
        [irqTypes.ppi]: 16 + random.below(16),
      }[type]!
  const vcpu = isOdd ? random.pick([0, 1, 15, 16, 17, 255, 256, 511]) : random.below(vcpus.length)
  return { op: 'irq_line', vm, irq: hex(packIrq({ type, vcpu, number })), level: random.pick([0, 1, 1, 2]) }
}

export function attribute({ random }: Context, { vcpu, vm }: KnownVcpu): Call {
  if (vm.device !== null && random.oneIn(2)) return deviceAttribute(random, vm.device)
  const owner = random.oneIn(5) ? { vm: vm.vm } : { vcpu }
  const group = random.pick([
    KVM_ARM_VCPU_PMU_V3_CTRL,
    KVM_ARM_VCPU_PMU_V3_CTRL,
    KVM_ARM_VCPU_TIMER_CTRL,
    KVM_ARM_VCPU_PVTIME_CTRL,
    random.below(8),
  ])
  const attr = hex(random.below(6))
  switch (random.below(4)) {
    case 0:
      return { op: 'has_device_attr', ...owner, group, attr }
    case 1: {
      const size = group === KVM_ARM_VCPU_PVTIME_CTRL ? 8 : 4
      return { op: 'get_device_attr', ...owner, group, attr, size }
    }
    default:
      return { op: 'set_device_attr', ...owner, group, attr, data: attributeData(random, owner, group, attr) }
  }
}

function attributeData(random: Random, owner: object, group: number, attr: string): string | null {
  if (random.oneIn(6)) return null
  const pick = (values: readonly number[]): bigint => BigInt(random.pick(values))
  if (group === KVM_ARM_VCPU_PMU_V3_CTRL && BigInt(attr) === KVM_ARM_VCPU_PMU_V3_FILTER) {
    const [first, count] = [pick([0, 1, 0x3ff, 0x400, 0xffff]), pick([0, 1, 0x400, 0xffff])]
    return littleEndian(first | (count << 16n) | (pick([0, 1, 2]) << 32n), 8)
  }
  // The kernel counts up the ids of PMUs from 6.
  if (group === KVM_ARM_VCPU_PMU_V3_CTRL && BigInt(attr) > KVM_ARM_VCPU_PMU_V3_FILTER) {
    return littleEndian(pick([0, 5, 6, 7, 8, 9, 10, 11, 31]), 4)
  }
  if ('vm' in owner) return littleEndian(random.bits(8), SMCCC_FILTER_SIZE)
  if (group === KVM_ARM_VCPU_PVTIME_CTRL) {
    return littleEndian(BigInt(PAGE * random.below(4) + random.pick([0, 64, 8])), 8)
  }
  return littleEndian(pick([0, 15, 16, 23, 27, 31, 32, 40, 1019, 1020]), 4)
}

function deviceAttribute(random: Random, device: number): Call {
  const [group, attr, data] = random.pick([
    [KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_VGIC_V3_ADDR_TYPE_DIST, littleEndian(DISTRIBUTOR, 8)],
    [KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_VGIC_V3_ADDR_TYPE_REDIST, littleEndian(REDISTRIBUTORS, 8)],
    [KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_VGIC_V3_ADDR_TYPE_DIST, littleEndian(0x800_1000n, 8)],
    [KVM_DEV_ARM_VGIC_GRP_NR_IRQS, 0n, littleEndian(random.pick([32n, 64n, 96n, 100n, 1024n, 1056n]), 4)],
    [KVM_DEV_ARM_VGIC_GRP_CTRL, 0n, null],
  ] as const)
  if (random.oneIn(4)) return { op: 'has_device_attr', device, group, attr: hex(attr) }
  if (random.oneIn(4) && group !== KVM_DEV_ARM_VGIC_GRP_CTRL) {
    const size = group === KVM_DEV_ARM_VGIC_GRP_ADDR ? 8 : 4
    return { op: 'get_device_attr', device, group, attr: hex(attr), size }
  }
  return { op: 'set_device_attr', device, group, attr: hex(attr), data }
}
