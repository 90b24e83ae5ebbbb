/** Follow-up calls for an outcome. */
import { hex } from '../registers/index.js'
import type { Call, Outcome } from '../trace/index.js'
import {
  featureWord,
  KVM_ARM_VCPU_TIMER_CTRL,
  KVM_DEV_ARM_VGIC_GRP_ADDR,
  KVM_DEV_ARM_VGIC_GRP_CTRL,
  KVM_VGIC_V3_ADDR_TYPE_DIST,
  KVM_VGIC_V3_ADDR_TYPE_REDIST,
  mpStates,
} from '../uapi.js'
import { list } from './choices/registers.js'
import { createVcpu, dirtyRing, finalizeSve, inventFeatures, refusedInit } from './choices/vms.js'
import type { Context, KnownVcpu, KnownVm } from './model.js'
import { CPU_ON, DISTRIBUTOR, littleEndian, MPIDR_EL1, MPIDR_RES1, REDISTRIBUTORS } from './vocabulary.js'

/** Plans the calls that a call's outcome suggests. */
export function follow(context: Context, call: Call, outcome: Outcome): void {
  const { model } = context
  switch (call.op) {
    case 'create_vm':
      if (outcome.ret === 0) beginVm(context, call.vm)
      break
    case 'create_vcpu':
      if (outcome.ret === 0) beginVcpu(context, model.vm(call.vm), call.vcpu)
      break
    case 'hvc':
    case 'smc':
      setGoingAgain(context, model.vcpu(call.vcpu), outcome)
      break
    case 'set_device_attr':
      if (outcome.ret === 0 && call.group === KVM_ARM_VCPU_TIMER_CTRL && call.vcpu !== undefined) {
        readTimerOfNewVcpu(context, model.vcpu(call.vcpu).vm, call.attr)
      }
      break
    case 'create_device':
      if (outcome.ret === 0 && call.flags === 0) configureGic(context, model.vm(call.vm), call.device)
      break
  }
}

function beginVm(context: Context, number: number): void {
  const { random, model } = context
  const features = inventFeatures(context)
  const vm = model.addVm(number, { features, isOnlyConfigured: random.oneIn(4) })
  if (random.oneIn(4)) model.plan(...dirtyRing(context, number))
  // Most VMs begin as a VMM begins them.
  if (!random.oneIn(8)) model.plan(createVcpu(context, vm, 0))
}

function beginVcpu(context: Context, vm: KnownVm, vcpu: number): void {
  const { random, model } = context
  const added = model.addVcpu(vcpu, vm)
  if (random.oneIn(8)) return
  // The next init shows what a refused init left behind.
  const isRefusedFirst = random.oneIn(6)
  if (isRefusedFirst) model.plan(refusedInit(context, vcpu, vm))
  model.plan({ op: 'vcpu_init', vcpu, target: 'preferred', features: [hex(vm.features)] })
  const hasSve = (vm.features & featureWord(['sve'])) !== 0
  if (hasSve ? !random.oneIn(4) : isRefusedFirst) model.plan(finalizeSve(vcpu))
  if (vm.vcpus.length === 1) model.plan(list(context, added))
  if (random.oneIn(6)) shareAffinity(context, added)
}

/** Several vCPUs with one affinity, not all of them on, show which one KVM selects. */
function shareAffinity({ random, model }: Context, { vcpu, vm }: KnownVcpu): void {
  const affinity = random.pick([0n, 1n])
  model.plan({ op: 'set_one_reg', vcpu, id: hex(MPIDR_EL1), value: hex(MPIDR_RES1 | affinity) })
  const first = vm.vcpus[0]!
  if (first.vcpu === vcpu || first.isOdd || random.oneIn(3)) return
  const [off, caller] = random.oneIn(2) ? [vcpu, first.vcpu] : [first.vcpu, vcpu]
  model.plan({ op: 'set_mp_state', vcpu: off, state: mpStates.stopped })
  if (random.oneIn(3)) return
  const args = [BigInt(random.pick(CPU_ON)), affinity]
  model.plan({ op: 'hvc', vcpu: caller, args: args.map(hex) })
}

/** Most machines that a call stopped are started again. */
function setGoingAgain({ random, model }: Context, { vcpu, vm }: KnownVcpu, outcome: Outcome): void {
  if (outcome.x || random.oneIn(4)) return
  const stopped = outcome.exit === undefined ? [{ vcpu }] : vm.vcpus
  model.plan(
    ...stopped.map((each): Call => ({ op: 'set_mp_state', vcpu: each.vcpu, state: mpStates.runnable })),
  )
}

/** A vCPU made later shows whether a timer's interrupt belongs to the VM or to the vCPU. */
function readTimerOfNewVcpu(context: Context, vm: KnownVm, attr: string): void {
  if (context.model.isClosedToVcpus(vm)) return
  const created = createVcpu(context, vm)
  const { vcpu } = created
  context.model.plan(created, { op: 'get_device_attr', vcpu, group: KVM_ARM_VCPU_TIMER_CTRL, attr, size: 4 })
}

/** Most GICs are configured as a VMM does it, or nearly so. */
function configureGic({ random, model }: Context, vm: KnownVm, device: number): void {
  if (vm.vcpus.length > 0 && random.oneIn(3)) {
    const { vcpu } = random.pick(vm.vcpus)
    const timer = { group: KVM_ARM_VCPU_TIMER_CTRL, attr: hex(random.below(2)) }
    model.plan({ op: 'set_device_attr', vcpu, ...timer, data: littleEndian(20n, 4) })
  }
  if (random.oneIn(4)) return
  const set = { op: 'set_device_attr', device } as const
  const address = { ...set, group: KVM_DEV_ARM_VGIC_GRP_ADDR }
  model.plan(
    { ...address, attr: hex(KVM_VGIC_V3_ADDR_TYPE_DIST), data: littleEndian(DISTRIBUTOR, 8) },
    { ...address, attr: hex(KVM_VGIC_V3_ADDR_TYPE_REDIST), data: littleEndian(REDISTRIBUTORS, 8) },
  )
  if (random.oneIn(4)) return
  model.plan({ ...set, group: KVM_DEV_ARM_VGIC_GRP_CTRL, attr: '0x0', data: null })
}
