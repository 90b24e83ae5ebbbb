/** `KVM_REGISTER_COALESCED_MMIO` and `KVM_UNREGISTER_COALESCED_MMIO`. */
import type { VmFd } from '../../backend.js'
import type { Kvm, PostedWrite, Vcpu, Vm } from '../../kvm/index.js'
import { type CheckGroup, notApplicable, violated } from '../check.js'
import {
  type Answer,
  answerOfOutcome,
  expect,
  expectValue,
  onBareVm,
  onProgram,
  runToStore,
  SUCCESS,
} from '../experiments.js'

const DOCUMENT = 'api.rst, KVM_(UN)REGISTER_COALESCED_MMIO'

const DEVICE = 0xa000_0000n
const ZONE = 0xb000_0000n
const ZONE_SIZE = 16
/** str w2, [x1]; str w2, [x3]; as often as the longest experiment stores. */
const pair = Uint32Array.from({ length: 32 }, (_, n) => (n % 2 === 0 ? 0xb900_0022 : 0xb900_0062))
/** More stores to the zone than a ring of a page of 64 KiB holds. */
const many = new Uint32Array(4096).fill(0xb900_0022)

interface Zoned {
  readonly vm: Vm
  readonly vcpu: Vcpu
  /** What the zone's receiver got. */
  readonly kept: PostedWrite[]
  /** Makes the guest store `value` at `address` and then to a device; returns the address of the first exit. */
  readonly store: (address: bigint, value: bigint) => bigint
}

/** A new VM with a zone, and a guest that executes `program`. */
function onZone(kvm: Kvm, program: Uint32Array, experiment: (zoned: Zoned) => string): string {
  if (kvm.checkExtension('KVM_CAP_COALESCED_MMIO') <= 0) notApplicable('no KVM_CAP_COALESCED_MMIO')
  return onProgram(kvm, program, { x1: ZONE, x3: DEVICE }, (vcpu, vm) => {
    const kept: PostedWrite[] = []
    vm.mmio.coalesced(ZONE, ZONE_SIZE, (writes) => kept.push(...writes))
    const store = (address: bigint, value: bigint): bigint => {
      vcpu.registers.set('x1', address)
      vcpu.registers.set('x2', value)
      const first = runToStore(vcpu)
      if (first !== DEVICE) expectValue('the next exit', runToStore(vcpu), DEVICE)
      return first
    }
    return experiment({ vm, vcpu, kept, store })
  })
}

export const coalescedMmio: CheckGroup = {
  title: 'Coalesced MMIO',
  checks: [
    {
      name: 'A write within a zone is kept, with its address, size and data, and does not end the run',
      promise: 'defer hardware register write emulation so that userspace exits are avoided',
      source: DOCUMENT,
      mark: 'promised',
      experiment: (kvm) =>
        onZone(kvm, pair, ({ kept, store }) => {
          expectValue('the exit', store(ZONE, 0x1_2345_6789n), DEVICE)
          expectValue('the exit of another', store(ZONE + 12n, 7n), DEVICE)
          if (kept.length !== 2) violated(`${kept.length} writes are kept, not 2`)
          for (const [index, [address, data]] of [
            [ZONE, 0x2345_6789n],
            [ZONE + 12n, 7n],
          ].entries()) {
            expectValue('the address', kept[index]!.address, address!)
            expectValue('the data', kept[index]!.data, data!)
            expectValue('the size', BigInt(kept[index]!.size), 4n)
          }
          return 'keeps them'
        }),
    },
    {
      name: 'A write that is not wholly within the zone, or comes after the zone was removed, is an exit',
      promise: 'a zone is addr and size; it is unregistered by the same',
      source: DOCUMENT,
      mark: 'promised',
      experiment: (kvm) =>
        onZone(kvm, pair, ({ vm, kept, store }) => {
          for (const address of [ZONE + 13n, ZONE - 1n]) {
            expectValue('the exit at an edge', store(address, 1n), address)
          }
          const other = ZONE + BigInt(ZONE_SIZE)
          const zone = vm.mmio.coalesced(other, 4, () => violated('another zone gets the write'))
          zone.close()
          expectValue('the exit after the zone', store(other, 1n), other)
          expectValue('the exit in the zone that stays', store(ZONE, 1n), DEVICE)
          if (kept.length !== 1) violated(`${kept.length} writes are kept, not 1`)
          return 'an exit'
        }),
    },
    {
      name: 'A write that finds the ring full is an exit, and those that it holds are kept in order',
      promise: 'the ring has room for KVM_COALESCED_MMIO_MAX entries less one',
      source: 'every release',
      mark: 'observed',
      experiment: (kvm) =>
        onZone(kvm, many, ({ vcpu, kept }) => {
          expectValue('the exit', runToStore(vcpu), ZONE)
          const held = kept.length
          if (held === 0 || kept.some(({ address }) => address !== ZONE)) violated(`${held} writes are kept`)
          expectValue('the next exit', runToStore(vcpu), ZONE)
          if (kept.length <= held) violated('the ring keeps nothing once it was emptied')
          return `after ${held} writes, and then after ${kept.length - held}`
        }),
    },
    {
      name: 'Zones of ports may be made and removed too, and any other number in their place is EINVAL',
      promise: 'pio is 0 or 1; removing what is not there succeeds',
      source: 'every release',
      mark: 'observed',
      experiment: (kvm) =>
        onBareVm(kvm, (vm) => {
          if (kvm.checkExtension('KVM_CAP_COALESCED_MMIO') <= 0) notApplicable('no KVM_CAP_COALESCED_MMIO')
          const ask = (what: 'register' | 'unregister', pio: number): Answer =>
            answerOfOutcome(vm[`${what}CoalescedMmio`](ZONE, ZONE_SIZE, pio))
          for (const what of ['unregister', 'register', 'register', 'unregister'] as const) {
            expect(`to ${what} memory`, ask(what, 0), SUCCESS)
            expect(`to ${what} ports`, ask(what, 1), SUCCESS)
            expect(`to ${what} neither`, ask(what, 2), 'EINVAL')
          }
          return 'EINVAL'
        }),
    },
    {
      name: 'A VM takes no more than 1000 zones: ENOSPC',
      promise: 'NR_IOBUS_DEVS',
      source: 'every release',
      mark: 'observed',
      experiment: (kvm) =>
        onBareVm(kvm, (vm) => {
          if (kvm.checkExtension('KVM_CAP_COALESCED_MMIO') <= 0) notApplicable('no KVM_CAP_COALESCED_MMIO')
          const add = (vmFd: VmFd): Answer => answerOfOutcome(vmFd.registerCoalescedMmio(ZONE, ZONE_SIZE, 0))
          for (let number = 1; number <= 1000; number++) expect(`zone ${number}`, add(vm), SUCCESS)
          expect('one more', add(vm), 'ENOSPC')
          expect('to remove all', answerOfOutcome(vm.unregisterCoalescedMmio(ZONE, 1, 0)), SUCCESS)
          expect('one of them again', add(vm), SUCCESS)
          return 'ENOSPC'
        }),
    },
  ],
}
