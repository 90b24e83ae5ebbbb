/** The bitmap firmware registers: the hypercall services a guest may discover. */
import { knownMask, type ServiceBitmap, serviceBitmaps } from '../../hypercalls/index.js'
import type { Kvm, Vcpu } from '../../kvm/index.js'
import { hex, registerName, sizes, withSize } from '../../registers/index.js'
import { type Check, type CheckGroup, deviates, notApplicable, violated } from '../check.js'
import {
  aboutRegister,
  answerOf,
  answerOfOutcome,
  expect,
  expectRead,
  expectWrite,
  isListed,
  onBareVcpu,
  onTwoVcpus,
  onVcpu,
  presentBitmaps,
  start,
  SUCCESS,
  write,
  takesLateVcpus,
} from '../experiments.js'

const DOCUMENT = 'arm/fw-pseudo-registers.rst, "Bitmap Feature Firmware Registers"'
const SELFTEST = 'selftest hypercalls'

const bits = Array.from({ length: 64 }, (_, bit) => 1n << BigInt(bit))

/** Bits a kernel may accept: those documented, and those it shows in a fresh VM by itself. */
function legalMask({ group, register }: ServiceBitmap, vcpu: Vcpu): bigint {
  return knownMask(group) | vcpu.registers.get(register)
}

function subsetsOf(mask: bigint): bigint[] {
  const set = bits.filter((bit) => (mask & bit) !== 0n)
  return set.reduce((subsets, bit) => subsets.concat(subsets.map((subset) => subset | bit)), [0n])
}

/** Returns a legal value other than the one the register holds. */
function otherValue(bitmap: ServiceBitmap, vcpu: Vcpu): bigint {
  const value = vcpu.registers.get(bitmap.register)
  return value === 0n ? knownMask(bitmap.group) : 0n
}

function checksOf(bitmap: ServiceBitmap): Check[] {
  const { name, register, services, group } = bitmap
  return aboutRegister(name, [
    {
      name: `${name} shows every service it has in a fresh VM`,
      promise: 'reset holds the upper limit: all services of the register are visible to the guest',
      source: `${DOCUMENT}; ${SELFTEST}`,
      mark: 'promised',
      experiment: (kvm) =>
        onVcpu(kvm, (vcpu) => {
          const reset = vcpu.registers.get(register)
          const accepted = bits.filter((bit) => write(vcpu, register, bit) === SUCCESS)
          const mask = accepted.reduce((sum, bit) => sum | bit, 0n)
          const did = `reads ${hex(reset)} and accepts the bits of ${hex(mask)}`
          if (reset === mask) return did
          // The text on its bits says that it resets to 0, the general text that it does not.
          return group === 'vendorHyp2' && reset === 0n ? deviates(did) : violated(did)
        }),
    },
    {
      name: `${name} accepts a bit for each documented service`,
      promise: `bits ${services.map(({ bit, kernelName }) => `${bit} (${kernelName})`).join(', ')}`,
      source: DOCUMENT,
      mark: 'promised',
      experiment: (kvm) =>
        onVcpu(kvm, (vcpu) => {
          for (const { bit } of services) expectWrite(vcpu, register, 1n << BigInt(bit))
          return `accepts ${services.map(({ bit }) => `bit ${bit}`).join(' and ')}`
        }),
    },
    {
      name: `${name} accepts every subset of its services, and reads as written`,
      promise: 'userspace may write a bitmap that holds fewer services than the upper limit',
      source: `${DOCUMENT}; ${SELFTEST}`,
      mark: 'promised',
      experiment: (kvm) =>
        onVcpu(kvm, (vcpu) => {
          const subsets = subsetsOf(legalMask(bitmap, vcpu))
          for (const subset of [...subsets, ...subsets.toReversed()]) {
            expectWrite(vcpu, register, subset)
            expectRead(vcpu, register, subset)
          }
          return `accepts ${subsets.map(hex).join(', ')}`
        }),
    },
    {
      name: `${name} refuses every other bit with EINVAL, and keeps its value`,
      promise: 'EINVAL for a bitmap with a bit that is not supported',
      source: `${DOCUMENT}; ${SELFTEST}`,
      mark: 'promised',
      experiment: (kvm) =>
        onVcpu(kvm, (vcpu) => {
          const legal = legalMask(bitmap, vcpu)
          const kept = vcpu.registers.get(register)
          const illegal = bits.filter((bit) => (legal & bit) === 0n)
          for (const value of [...illegal, ...illegal.map((bit) => bit | legal)]) {
            expectWrite(vcpu, register, value, 'EINVAL')
          }
          expectRead(vcpu, register, kept, 'after the refusals')
          return `EINVAL for each of ${illegal.length} bits, alone and beside legal ones`
        }),
    },
    {
      name: `${name} is one register of the whole VM`,
      promise: 'what one vCPU is told holds for all, also for one created later',
      source: 'every release',
      mark: 'observed',
      experiment: (kvm) =>
        onTwoVcpus(kvm, (first, second, vm) => {
          const value = otherValue(bitmap, first)
          expectWrite(first, register, value)
          expectRead(second, register, value, 'of the second vCPU')
          expectRead(vm.createVcpu(2), register, value, 'of a later vCPU')
          return `${hex(value)} reads the same on three vCPUs`
        }),
    },
    {
      name: `${name} cannot be changed once a vCPU has run`,
      promise: 'EBUSY for a write after the VM has started; what was elected stays',
      source: `${DOCUMENT}; ${SELFTEST}`,
      mark: 'promised',
      experiment: (kvm) =>
        onVcpu(kvm, (vcpu) => {
          const elected = otherValue(bitmap, vcpu)
          const other = vcpu.registers.get(register)
          expectWrite(vcpu, register, elected)
          start(vcpu)
          expectRead(vcpu, register, elected, 'after the run')
          expectWrite(vcpu, register, other, 'EBUSY')
          expectRead(vcpu, register, elected, 'after the refusal')
          return `EBUSY, and reads ${hex(elected)} as elected`
        }),
    },
    {
      name: `${name} refuses any write once a vCPU has run, also of the value it holds`,
      promise: 'EBUSY for an attempt to write after the VM has started',
      source: DOCUMENT,
      mark: 'promised',
      experiment: (kvm) => {
        const answer = sameValueAfterRun(kvm, bitmap)
        if (answer === 'EBUSY') return 'EBUSY for the value it holds'
        return answer === SUCCESS ? deviates('accepts the value it holds') : violated(answer)
      },
    },
    {
      name: `${name} accepts the value it holds once a vCPU has run`,
      promise: 'VMMs write every register again when they reset a guest',
      source: 'every release since the registers came with 5.19',
      mark: 'observed',
      experiment: (kvm) => {
        expect(`${name}, written back after the run`, sameValueAfterRun(kvm, bitmap), SUCCESS)
        return 'accepts it'
      },
    },
    {
      name: `${name} is frozen for all vCPUs by the run of one`,
      promise: 'EBUSY once any vCPU of the VM has run',
      source: DOCUMENT,
      mark: 'promised',
      experiment: (kvm) =>
        onTwoVcpus(kvm, (first, second, vm) => {
          const other = otherValue(bitmap, first)
          start(first)
          expectWrite(second, register, other, 'EBUSY')
          if (!takesLateVcpus(kvm)) return 'EBUSY through a vCPU that never ran; pKVM takes none later'
          expectWrite(vm.createVcpu(2), register, other, 'EBUSY')
          return 'EBUSY through a vCPU that never ran, and through one created later'
        }),
    },
    {
      name: `${name} stays as elected, and frozen, when a vCPU is initialised again`,
      promise: 'KVM_ARM_VCPU_INIT resets a vCPU and not what the VM was given',
      source: 'every release',
      mark: 'observed',
      experiment: (kvm) =>
        onVcpu(kvm, (vcpu) => {
          const elected = otherValue(bitmap, vcpu)
          const other = vcpu.registers.get(register)
          expectWrite(vcpu, register, elected)
          vcpu.init()
          expectRead(vcpu, register, elected, 'after another init')
          start(vcpu)
          vcpu.init()
          expectRead(vcpu, register, elected, 'after run and init')
          expectWrite(vcpu, register, other, 'EBUSY')
          return `reads ${hex(elected)}, and EBUSY for another`
        }),
    },
    {
      name: `${name} refuses an unsupported bit with EINVAL also after the run`,
      promise: 'the bitmap is looked at before the state of the VM',
      source: 'every release',
      mark: 'observed',
      experiment: (kvm) =>
        onVcpu(kvm, (vcpu) => {
          const legal = legalMask(bitmap, vcpu)
          start(vcpu)
          for (const value of bits.filter((bit) => (legal & bit) === 0n)) {
            expectWrite(vcpu, register, value, 'EINVAL')
          }
          return 'EINVAL'
        }),
    },
    {
      name: `${name} has 64 bits, and ENOENT answers for any narrower width`,
      promise: 'no such register',
      source: 'every release',
      mark: 'observed',
      experiment: (kvm) =>
        onVcpu(kvm, (vcpu) => {
          for (const size of [sizes.U8, sizes.U16, sizes.U32]) {
            const id = withSize(register, size)
            expect(
              `reading ${hex(id)}`,
              answerOf(() => vcpu.registers.get(id)),
              'ENOENT',
            )
            expectWrite(vcpu, id, 0n, 'ENOENT')
          }
          return 'ENOENT for 8, 16 and 32 bits, read and written'
        }),
    },
  ])
}

function sameValueAfterRun(kvm: Kvm, { register }: ServiceBitmap): string {
  return onVcpu(kvm, (vcpu) => {
    start(vcpu)
    return write(vcpu, register, vcpu.registers.get(register))
  })
}

/** Ids in the bitmaps' space that name no register of this host. */
function unknownIds(vcpu: Vcpu): bigint[] {
  const first = serviceBitmaps.std.register
  return [...Array.from({ length: 32 }, (_, index) => BigInt(index)), 0x100n, 0xffffn]
    .map((index) => first + index)
    .filter((id) => !isListed(vcpu, id))
}

const ofTheSpace: Check[] = [
  {
    name: 'The three bitmap registers of the series come together',
    promise: 'a register each for standard, standard hypervisor and vendor hypervisor services',
    source: `${DOCUMENT}; selftest get-reg-list`,
    mark: 'promised',
    experiment: (kvm) => {
      const present = presentBitmaps(kvm).map(({ name }) => name)
      const { std, stdHyp, vendorHyp } = serviceBitmaps
      const missing = [std, stdHyp, vendorHyp].filter(({ name }) => !present.includes(name))
      if (present.length === 0)
        notApplicable('this kernel has no bitmap registers: it is older than they are')
      if (missing.length > 0) violated(`has no ${missing.map(({ name }) => name).join(' and no ')}`)
      return `has ${present.join(', ')}`
    },
  },
  {
    name: 'A bitmap register nobody knows is ENOENT, read and written',
    promise: 'ENOENT for an unknown register',
    source: DOCUMENT,
    mark: 'promised',
    experiment: (kvm) =>
      onVcpu(kvm, (vcpu) => {
        const ids = unknownIds(vcpu)
        for (const id of ids) {
          expect(
            `reading ${hex(id)}`,
            answerOf(() => vcpu.registers.get(id)),
            'ENOENT',
          )
          expectWrite(vcpu, id, 0n, 'ENOENT')
        }
        return 'ENOENT'
      }),
  },
  {
    name: 'A bitmap register of a wrong width is refused before the value is read',
    promise: 'ENOENT, also where the value cannot be read: a wide one would overrun the kernel’s stack',
    source: 'every release (and stable update) since 6.3',
    mark: 'observed',
    experiment: (kvm) => {
      const present = presentBitmaps(kvm)
      if (present.length === 0) notApplicable('this kernel has no bitmap registers')
      onBareVcpu(kvm, ['psci-0.2'], (vcpu) => {
        for (const { register } of present) {
          // Only narrower widths: they are harmless on a kernel without the check.
          for (const size of [sizes.U8, sizes.U16, sizes.U32]) {
            const id = withSize(register, size)
            expect(
              `writing ${hex(id)} from a null address`,
              answerOfOutcome(vcpu.setOneRegAtNull(id)),
              'ENOENT',
            )
          }
        }
      })
      return 'ENOENT from a null address'
    },
  },
  {
    name: 'A value that cannot be read is EFAULT, and changes no bitmap register',
    promise: 'a faulting address has no effect',
    source: 'every release',
    mark: 'observed',
    experiment: (kvm) => {
      const present = presentBitmaps(kvm)
      if (present.length === 0) notApplicable('this kernel has no bitmap registers')
      onBareVcpu(kvm, ['psci-0.2'], (vcpu) => {
        for (const { register, name } of present) {
          const before = vcpu.getOneReg(register)
          expect(`${name} from a null address`, answerOfOutcome(vcpu.setOneRegAtNull(register)), 'EFAULT')
          expect(`${name} to a null address`, answerOfOutcome(vcpu.getOneRegAtNull(register)), 'EFAULT')
          if (vcpu.getOneReg(register) !== before) violated(`${name} changed`)
        }
      })
      return 'EFAULT'
    },
  },
  {
    name: 'A run that KVM refuses freezes nothing',
    promise: 'the VM starts when a vCPU first runs',
    source: DOCUMENT,
    mark: 'observed',
    experiment: (kvm) => {
      const [bitmap] = presentBitmaps(kvm)
      if (bitmap === undefined) notApplicable('this kernel has no bitmap registers')
      return onVcpu(kvm, (vcpu, vm) => {
        const refused = start(vm.createVcpu(1, { init: false }))
        expect('KVM_RUN of a vCPU that was not initialised', refused, 'ENOEXEC')
        expectWrite(vcpu, bitmap.register, otherValue(bitmap, vcpu))
        return `KVM_RUN is ENOEXEC, and ${bitmap.name} can be written after it`
      })
    },
  },
  {
    name: 'The run of one VM does not freeze another',
    promise: 'bitmaps belong to a VM',
    source: DOCUMENT,
    mark: 'observed',
    experiment: (kvm) => {
      const present = presentBitmaps(kvm)
      if (present.length === 0) notApplicable('this kernel has no bitmap registers')
      return onVcpu(kvm, (running) =>
        onVcpu(kvm, (vcpu) => {
          start(running)
          for (const bitmap of present) expectWrite(vcpu, bitmap.register, otherValue(bitmap, vcpu))
          return `${present.length} registers of another VM can be written`
        }),
      )
    },
  },
  {
    name: 'The bitmaps of hypercalls advertise nothing that is not documented',
    promise: 'every bit of a fresh VM stands for a documented service',
    source: DOCUMENT,
    mark: 'observed',
    experiment: (kvm) =>
      onVcpu(kvm, (vcpu) => {
        const present = presentBitmaps(kvm)
        if (present.length === 0) notApplicable('this kernel has no bitmap registers')
        for (const { register, group } of present) {
          const unknown = vcpu.registers.get(register) & ~knownMask(group)
          if (unknown !== 0n)
            violated(`${registerName(register)} shows ${hex(unknown)}, which is not documented`)
        }
        return 'shows documented services only'
      }),
  },
]

export const bitmapRegisters: CheckGroup = {
  title: 'Bitmap firmware registers',
  checks: [...ofTheSpace, ...Object.values(serviceBitmaps).flatMap(checksOf)],
}
