/** Calls that make and set up VMs and vCPUs. */
import { hex } from '../../registers/index.js'
import type { Call, CallOf } from '../../trace/index.js'
import { CAPABILITY_NUMBERS, NO_IPA_SIZE } from '../../report/machine.js'
import { capabilities, featureWord, KVM_ARM_VCPU_SVE, KVM_MEM_LOG_DIRTY_PAGES } from '../../uapi.js'
import type { Context, KnownVcpu, KnownVm } from '../model.js'
import type { Random } from '../random.js'
import { ENABLED, FUNCTION_IDS, MOST_VCPUS, MOST_VMS, PAGE } from '../vocabulary.js'

export function createVm({ random, model }: Context): Call {
  if (model.vms.length >= MOST_VMS) return { op: 'close', vm: model.dropOldestVm().vm }
  const type = random.oneIn(12) ? random.pick([0x20n, 0x24n, 0x28n, 0x30n, 0x7fn, 0x100n]) : 0n
  return { op: 'create_vm', vm: model.next('vm'), type: hex(type) }
}

/** A VM of a size that only pKVM accepts. */
export function createVmOfAnySize({ model }: Context): Call {
  return { op: 'create_vm', vm: model.next('vm'), type: hex(BigInt(NO_IPA_SIZE)) }
}

export function createVcpu(context: Context, vm: KnownVm, id = vcpuId(context, vm)): CallOf<'create_vcpu'> {
  vm.ids.add(id)
  return { op: 'create_vcpu', vm: vm.vm, vcpu: context.model.next('vcpu'), id }
}

function vcpuId({ random }: Context, vm: KnownVm): number {
  const isFull = vm.vcpus.length >= MOST_VCPUS
  // A taken id is refused only after the vCPU was given a redistributor, which Linux before 6.12 then leaves dangling.
  if (vm.device !== null) return isFull ? 0xffff_ffff : freeId(vm.ids)
  if (isFull) return 0
  return random.oneIn(5) ? random.pick([0, 1, 15, 16, 17, 255, 511, 512, 0xffff_ffff]) : vm.vcpus.length
}

function freeId(taken: ReadonlySet<number>): number {
  for (let id = 0; ; id++) if (!taken.has(id)) return id
}

/** Returns features for the vCPUs of a VM, mostly features that were not refused before. */
export function inventFeatures({ random, model }: Context): number {
  for (let attempt = 0; ; attempt++) {
    let features = random.oneIn(8) ? 0 : featureWord(['psci-0.2'])
    if (random.oneIn(4)) features |= featureWord(['pmu-v3'])
    if (random.oneIn(4)) features |= featureWord(['sve'])
    if (random.oneIn(5)) features |= featureWord(['ptrauth-address']) | featureWord(['ptrauth-generic'])
    if (random.oneIn(6)) features |= featureWord(['el1-32bit'])
    if (random.oneIn(10)) features |= featureWord(['power-off'])
    if (attempt === 4 || !model.refusedFeatures.has(features)) return features
  }
}

export function init(context: Context, { vcpu, vm }: KnownVcpu): Call {
  const { random, model } = context
  const target = random.oneIn(8) ? random.below(8) : 'preferred'
  const features = random.oneIn(3) ? oddFeatures(context, vm) : [vm.features]
  if ((vm.features & featureWord(['sve'])) !== 0 && random.oneIn(2)) model.plan(finalizeSve(vcpu))
  return { op: 'vcpu_init', vcpu, target, features: features.map(hex) }
}

/** An init with half of pointer authentication, or with an additional feature that no kernel knows. */
export function refusedInit({ random }: Context, vcpu: number, { features }: KnownVm): Call {
  if (random.oneIn(3)) {
    const half =
      features | featureWord(['sve']) | featureWord([random.oneIn(2) ? 'ptrauth-address' : 'el1-32bit'])
    return { op: 'vcpu_init', vcpu, target: 'preferred', features: [hex(half)] }
  }
  const more = random.pick(['psci-0.2', 'pmu-v3', 'sve', 'power-off'] as const)
  const word = (features | featureWord([more]) | (1 << (7 + random.below(random.oneIn(2) ? 4 : 25)))) >>> 0
  return { op: 'vcpu_init', vcpu, target: 'preferred', features: [hex(word)] }
}

function oddFeatures(context: Context, { features }: KnownVm): number[] {
  const { random } = context
  switch (random.below(4)) {
    case 0:
      return [(features ^ (1 << random.below(32))) >>> 0]
    case 1:
      return [(features ^ featureWord(['power-off'])) >>> 0]
    case 2:
      return [features, ...Array.from({ length: random.below(7) }, () => random.below(2))]
    default:
      return [inventFeatures(context)]
  }
}

export function finalize({ random }: Context, { vcpu }: KnownVcpu): Call {
  const feature = random.oneIn(3) ? random.below(12) : KVM_ARM_VCPU_SVE
  return { op: 'vcpu_finalize', vcpu, feature }
}

export function finalizeSve(vcpu: number): Call {
  return { op: 'vcpu_finalize', vcpu, feature: KVM_ARM_VCPU_SVE }
}

export function checkExtension({ random }: Context, { vm: { vm } }: KnownVcpu): Call {
  const cap = random.oneIn(3) ? anyCapability(random) : random.pick(Object.values(capabilities))
  return random.oneIn(2) ? { op: 'check_extension', cap } : { op: 'check_extension', vm, cap }
}

/** Any number: mostly one of those in use, else one that a probe records, or a little beyond. */
function anyCapability(random: Random): number {
  if (random.oneIn(6)) return random.word()
  return random.below(random.oneIn(2) ? 256 : CAPABILITY_NUMBERS + 32)
}

export function enableCapability({ random }: Context, { vm: { vm } }: KnownVcpu): Call {
  const args = random.oneIn(3) ? [hex(random.pick([0n, 1n, 2n, 3n, 0x1000n, 0x20_0000n, 1n << 32n]))] : []
  const flags = random.oneIn(10) ? 1 : 0
  return { op: 'enable_cap', vm, cap: random.pick(ENABLED), flags, args }
}

export function writableMasks({ random }: Context, { vm: { vm } }: KnownVcpu): Call {
  return { op: 'writable_masks', vm, range: random.oneIn(4) ? 1 : 0 }
}

export function filter({ random }: Context, { vm: { vm } }: KnownVcpu): Call {
  const base = (random.pick(FUNCTION_IDS) + random.below(3)) >>> 0
  const nr = random.pick([0, 1, 1, 2, 3, 0x1_0000, 0xffff_ffff])
  return { op: 'smccc_filter', vm, base, nr, action: random.below(random.oneIn(6) ? 256 : 3) }
}

export function memory({ random, model }: Context, { vm: { vm } }: KnownVcpu): Call {
  const number = model.next('memory')
  const flags = random.oneIn(2) ? KVM_MEM_LOG_DIRTY_PAGES : 0
  const region = { slot: random.below(2), flags, address: hex(PAGE * random.below(3)) }
  model.plan({ op: 'set_user_memory_region', vm, ...region, memory: number, offset: 0, size: PAGE })
  return { op: 'create_memory', memory: number, size: PAGE }
}

export function counterOffset({ random }: Context, { vm: { vm } }: KnownVcpu): Call {
  const offset = hex(random.bits(random.pick([8, 32, 64])))
  return { op: 'set_counter_offset', vm, offset, ...(random.oneIn(4) && { reserved: '0x1' }) }
}

/** Begins or ends a slot's log, reads or clears it. */
export function dirtyLog({ random, model }: Context, { vm: { vm, slots } }: KnownVcpu): Call {
  const mapped = slots.size > 0 ? random.pick([...slots.values()]) : undefined
  const slot =
    random.oneIn(6) || mapped === undefined ? random.pick([0, 1, 2, 500, 511, 512, 0x1_0000]) : mapped.slot
  const words = 4
  if (mapped !== undefined && random.oneIn(4)) {
    if (random.oneIn(2)) model.plan({ op: 'get_dirty_log', vm, slot: mapped.slot, words })
    return { ...mapped, flags: mapped.flags ^ KVM_MEM_LOG_DIRTY_PAGES }
  }
  if (random.oneIn(2)) return { op: 'get_dirty_log', vm, slot, words }
  const pages = PAGE / 4096
  const part = random.oneIn(2)
    ? { first_page: 0, pages }
    : {
        first_page: random.pick([0, 0, 1, 64, 128]),
        pages: random.pick([0, 1, pages - 1, pages, pages + 1, 64, 128]),
      }
  return { op: 'clear_dirty_log', vm, slot, ...part, words, bitmap: { 0: hex(random.bits(64)) } }
}

/** Calls that enable a dirty ring, to be made before the first vCPU; most succeed. The rings are so large that no guest fills one. */
export function dirtyRing({ random }: Context, vm: number): Call[] {
  const sizes = [0x1_0000n, 0x1_0000n, 0n, 0x800n, 0x1_8000n, 0x20_0000n, (1n << 32n) | 0x1_0000n, 1n << 32n]
  const ring: Call = {
    op: 'enable_cap',
    vm,
    cap: capabilities.KVM_CAP_DIRTY_LOG_RING_ACQ_REL,
    ...(random.oneIn(6) && { flags: 1 }),
    args: [hex(random.pick(sizes))],
  }
  const bitmap: Call = {
    op: 'enable_cap',
    vm,
    cap: capabilities.KVM_CAP_DIRTY_LOG_RING_WITH_BITMAP,
    args: [],
  }
  const calls: Call[] = random.oneIn(2) ? [ring, bitmap] : [ring]
  return random.oneIn(5) ? calls.toReversed() : calls
}

/** No VM of the fuzzer has tags, since its memory could not be simulated. */
export function copyTags({ random }: Context, { vm: { vm } }: KnownVcpu): Call {
  const [address, length] = [hex(PAGE * random.below(3)), random.pick([0, 16, PAGE, 2 * PAGE])]
  return { op: 'mte_copy_tags', vm, address, length, flags: random.below(4) }
}

export function resetDirtyRings(_: Context, { vm: { vm } }: KnownVcpu): Call {
  return { op: 'reset_dirty_rings', vm }
}

/** What KVM counts of a VM or of a vCPU. */
export function stats({ random }: Context, { vcpu, vm: { vm } }: KnownVcpu): Call {
  return { op: 'get_stats_fd', ...(random.oneIn(2) ? { vm } : { vcpu }) }
}

export function close({ model }: Context, vcpu: KnownVcpu): Call {
  model.dropVcpu(vcpu)
  return { op: 'close', vcpu: vcpu.vcpu }
}
