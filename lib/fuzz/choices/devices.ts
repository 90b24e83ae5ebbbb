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
  routeTypes,
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

export function signalMsi({ random }: Context, { vm: { vm } }: KnownVcpu): Call {
  const address = hex(random.pick([0n, DISTRIBUTOR, REDISTRIBUTORS, 0x809_0040n, 1n << 40n]))
  const [flags, devid] = [random.pick([0, 1, 1, 2, 3]), random.below(3)]
  return { op: 'signal_msi', vm, address, data: hex(random.below(4)), flags, devid }
}

/** Half of the routes are possible. */
export function gsiRouting({ random }: Context, { vm: { vm } }: KnownVcpu): Call {
  const isOdd = random.oneIn(2)
  const routes = Array.from({ length: random.below(4) }, (_, index) => ({
    gsi: isOdd ? random.pick([0, 0, 1, 4095, 4096, 0xffff_ffff]) : index,
    type: isOdd ? random.below(6) : random.pick(Object.values(routeTypes)),
    flags: isOdd ? random.below(3) : 0,
    words: isOdd ? [random.below(2), random.pick([0, 31, 987, 988, 0xffff_ffff])] : [0, random.below(64)],
  }))
  return { op: 'set_gsi_routing', vm, routes, ...(random.oneIn(8) && { flags: 1 }) }
}

/** Each VM has events of its own: which VMs may share one depends on the kernel. */
function eventOf({ random }: Context, { vm }: KnownVcpu): number | null {
  if (vm.events.length < 2 && !random.oneIn(3)) return null
  return vm.events.length === 0 ? null : random.pick(vm.events)
}

function createEvent({ model }: Context, { vm }: KnownVcpu): Call {
  const event = model.next('event')
  vm.events.push(event)
  return { op: 'create_event', event }
}

/** A guest stores nothing at these addresses. */
export function ioEvent(context: Context, vcpu: KnownVcpu): Call {
  const event = eventOf(context, vcpu)
  if (event === null) return createEvent(context, vcpu)
  const { random } = context
  const address = hex(
    random.pick([0x900_0000n, 0x900_0000n, 0x900_0004n, (1n << 64n) - 4n, (1n << 64n) - 1n]),
  )
  const size = random.pick([0, 1, 2, 4, 4, 8, 3, 16])
  const flags = random.oneIn(6) ? random.below(64) : random.pick([0, 1, 4, 5])
  const { vm } = vcpu.vm
  return { op: 'ioeventfd', vm, event, address, size, flags, datamatch: hex(random.below(2)) }
}

/**
 * A guest stores nothing at these addresses: a large zone starts above the store that ends a guest's call, which would never return
 * otherwise. Zones of 1000 and more are left to conformance.
 */
export function coalescedZone({ random }: Context, { vm: { vm } }: KnownVcpu): Call {
  const op = random.oneIn(3) ? 'unregister_coalesced_mmio' : 'register_coalesced_mmio'
  const size = random.pick([0, 1, 4, 8, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff])
  const low = size > 8 ? [0x1000_0000n, 0x1000_0004n] : [0x900_0000n, 0x900_0004n]
  const address = hex(random.pick([...low, (1n << 64n) - 4n]))
  return { op, vm, address, size, ...(random.oneIn(2) && { pio: random.pick([1, 2, 0xffff_ffff]) }) }
}

export function irqEvent(context: Context, vcpu: KnownVcpu): Call {
  const event = eventOf(context, vcpu)
  if (event === null) return createEvent(context, vcpu)
  const { random } = context
  const flags = random.oneIn(6) ? random.below(8) : random.pick([0, 0, 1])
  const gsi = random.pick([0, 1, 1, 31, 4095, 4096, 0xffff_ffff])
  const resampled = flags & 2 ? { resampled: random.pick(vcpu.vm.events) } : {}
  return { op: 'irqfd', vm: vcpu.vm.vm, event, gsi, flags, ...resampled }
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

/** An attribute of a GIC other than its registers. */
export function deviceAttribute(random: Random, device: number): Call {
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
