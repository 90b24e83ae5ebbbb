/**
 * The questions put to a real kernel and to the simulator of its report, whose answers must be the same word for word. Each
 * scenario works on VMs of its own and drives the bare ioctls, so that nothing above them hides an answer.
 */
import type { Backend, SystemFd, VcpuFd, VmFd } from '../../lib/backend.js'
import { initialise, listRegisters, onVcpu, onVm, freeze } from '../../lib/probe/rig.js'
import { errnoName } from '../../lib/kvm/errors.js'
import {
  encodeRegister,
  isFeatureIdRegister,
  registerName,
  registerWidth,
} from '../../lib/registers/index.js'
import type { VcpuFeature } from '../../lib/uapi.js'
import { featureWord } from '../../lib/uapi.js'

export interface Answer {
  question: string
  answer: string
}

const FIRMWARE = [0x140000n, 0x140001n, 0x140002n, 0x140003n, 0x160000n, 0x160001n, 0x160002n, 0x160003n].map(
  (low) => 0x6030000000000000n | low,
)

const FIRMWARE_VALUES = [
  0x0n,
  0x1n,
  0x2n,
  0x3n,
  0x4n,
  0x5n,
  0x10n,
  0x11n,
  0x12n,
  0x13n,
  0x20n,
  0x10000n,
  0x10001n,
  0x10002n,
  0x10003n,
  0x10004n,
  0x20000n,
  1n << 32n,
  (1n << 32n) | 2n,
  1n << 63n,
  (1n << 64n) - 1n,
]

/** Ids that name nothing, or nothing of that width, in every space. All are safe on every kernel. */
const ODD_IDS = [
  ...[4n, 5n, 0x100n, 0xffffn].flatMap((index) => [0x6030000000140000n | index, 0x6030000000160000n | index]),
  ...FIRMWARE.flatMap((id) => [0n, 1n, 2n].map((size) => (id & ~(0xfn << 52n)) | (size << 52n))),
  // Bits 28-31, stray bits above, another architecture.
  0x6030000010140000n,
  0x6030000080160000n,
  0x6030000100140000n,
  0x6038000000140000n,
  0x4030000000140000n,
  0x2030000000160000n,
  // Spaces without a meaning.
  0x6030000000000000n,
  0x60300000000f0000n,
  0x6030000000120000n,
  0x6030000000170000n,
  0x603000000fff0000n,
  // Core: past the end, misaligned, wrong widths.
  0x6030000000100fffn,
  0x6030000000100001n,
  0x6020000000100000n,
  0x6040000000100000n,
  0x6030000000100054n,
  0x60200000001000d6n,
  // CCSIDR of a level that is not, and of another width.
  0x60200000001100ffn,
  0x6030000000110000n,
  0x6020000000110100n,
  0x602000000011000fn,
  // System registers nobody has.
  0x603000000013ffffn,
  0x6030000000130000n,
  0x602000000013c020n,
  // SVE without SVE, or ids beyond it.
  0x606000000015ffffn,
  0x6080000000150000n,
  0x6080000000150020n,
  0x6030000000150000n,
]

/** Every answer of a host's KVM, in a fixed order. */
export function ask(backend: Backend): Answer[] {
  const kvm = backend.open()
  if (typeof kvm === 'number') throw new Error(`open: ${errnoName(kvm)}`)
  const answers: Answer[] = []
  const note = (question: string, answer: bigint | number | object | null): void => {
    answers.push({ question, answer: text(answer) })
  }
  try {
    for (const scenario of scenarios) scenario(kvm, note)
  } finally {
    kvm.close()
  }
  return answers
}

type Note = (question: string, answer: bigint | number | object | null) => void

const BASE: VcpuFeature[] = ['psci-0.2']

const scenarios: ((kvm: SystemFd, note: Note) => void)[] = [
  createsVms,
  createsVcpus,
  refusesBeforeInit,
  initialisesVcpus,
  listsRegisters,
  readsAndWritesBackEveryRegister,
  tellsWhetherATimerHasFired,
  answersOddIds,
  writesFirmwareRegisters,
  writesFeatureIdRegisters,
]

function createsVms(kvm: SystemFd, note: Note): void {
  for (const type of [
    0n,
    1n,
    31n,
    32n,
    36n,
    40n,
    44n,
    48n,
    49n,
    52n,
    53n,
    0xffn,
    0x100n,
    1n << 32n,
    1n << 63n,
  ]) {
    const vm = kvm.createVm(type)
    note(`KVM_CREATE_VM ${hex(type)}`, vm)
    if (typeof vm !== 'number') vm.close()
  }
}

function createsVcpus(kvm: SystemFd, note: Note): void {
  onVm(kvm, 0n, (vm) => {
    for (const id of [0, 0, 7, 511, 512, 513, 0x10000, 0x7fffffff]) {
      const vcpu = vm.createVcpu(id)
      note(`KVM_CREATE_VCPU ${id}`, vcpu)
      if (typeof vcpu !== 'number') vcpu.close()
    }
  })
}

function refusesBeforeInit(kvm: SystemFd, note: Note): void {
  onVm(kvm, 0n, (vm) =>
    onVcpu(vm, 0, (vcpu) => {
      for (const id of [...FIRMWARE, ...ODD_IDS]) askOneRegister(`before init`, vcpu, id, 1n, note)
      note('KVM_GET_REG_LIST before init', vcpu.getRegList(new BigUint64Array(1)))
      note('KVM_RUN before init', freeze(vcpu))
      note('KVM_ARM_VCPU_FINALIZE before init', vcpu.finalize(4))
      note('KVM_GET_VCPU_EVENTS before init', vcpu.getVcpuEvents(new Uint8Array(64)))
    }),
  )
}

function initialisesVcpus(kvm: SystemFd, note: Note): void {
  const one = (question: string, experiment: (vm: VmFd, vcpu: VcpuFd) => void): void =>
    onVm(kvm, 0n, (vm) => onVcpu(vm, 0, (vcpu) => (experiment(vm, vcpu), note(question, stateOf(vcpu)))))
  for (let target = 0; target < 8; target++) {
    one(`state after target ${target}`, (_vm, vcpu) =>
      note(`KVM_ARM_VCPU_INIT target ${target}`, vcpu.init(target, [4])),
    )
  }
  for (let bit = 0; bit < 32; bit++) {
    const word = (1 << bit) >>> 0
    one(`state after feature ${bit}`, (vm, vcpu) =>
      note(`KVM_ARM_VCPU_INIT feature ${bit}`, initRaw(vm, vcpu, [word])),
    )
    one(`state after an init with feature ${bit} and one without`, (vm, vcpu) => {
      initRaw(vm, vcpu, [(word | 4) >>> 0])
      note(`KVM_ARM_VCPU_INIT without features after feature ${bit}`, initRaw(vm, vcpu, [0]))
    })
  }
  for (const words of [
    [4, 1],
    [4, 0, 0, 0, 0, 0, 0x80000000],
    [4, 0, 0, 1],
  ]) {
    one(`state after words ${words.join()}`, (vm, vcpu) =>
      note(`KVM_ARM_VCPU_INIT words ${words.join()}`, initRaw(vm, vcpu, words)),
    )
  }
  for (const [first, second] of pairsOfFeatureSets) {
    const what = `${first.join('+') || 'nothing'} then ${second.join('+') || 'nothing'}`
    one(`state after ${what}`, (vm, vcpu) => {
      note(`first init of ${what}`, initRaw(vm, vcpu, [featureWord(first)]))
      note(`second init of ${what}`, initRaw(vm, vcpu, [featureWord(second)]))
    })
    onVm(kvm, 0n, (vm) =>
      onVcpu(vm, 0, (vcpu) =>
        onVcpu(vm, 1, (sibling) => {
          initRaw(vm, vcpu, [featureWord(first)])
          note(`sibling's init of ${what}`, initRaw(vm, sibling, [featureWord(second)]))
          note(`states of siblings after ${what}`, { first: stateOf(vcpu), second: stateOf(sibling) })
        }),
      ),
    )
  }
  onVm(kvm, 0n, (vm) =>
    onVcpu(vm, 0, (vcpu) => {
      note('init with sve', initRaw(vm, vcpu, [featureWord(['psci-0.2', 'sve'])]))
      note('KVM_GET_REG_LIST before finalize', vcpu.getRegList(new BigUint64Array(1)))
      note('KVM_RUN before finalize', freeze(vcpu))
      askOneRegister('before finalize', vcpu, 0x606000000015ffffn, 1n, note)
      askOneRegister('before finalize', vcpu, 0x6080000000150000n, 0n, note)
      askOneRegister('before finalize', vcpu, FIRMWARE[4]!, 0n, note)
      for (const feature of [0, 3, 4, 4, 5, 7])
        note(`KVM_ARM_VCPU_FINALIZE ${feature}`, vcpu.finalize(feature))
      askOneRegister('after finalize', vcpu, 0x606000000015ffffn, 1n, note)
      askOneRegister('after finalize', vcpu, 0x6080000000150000n, 5n, note)
      note('KVM_RUN after finalize', freeze(vcpu))
    }),
  )
}

const pairsOfFeatureSets: [VcpuFeature[], VcpuFeature[]][] = [
  [BASE, BASE],
  [BASE, []],
  [[], BASE],
  [BASE, [...BASE, 'power-off']],
  [[...BASE, 'power-off'], BASE],
  [BASE, [...BASE, 'pmu-v3']],
  [[...BASE, 'pmu-v3'], BASE],
  [BASE, [...BASE, 'el1-32bit']],
  [BASE, [...BASE, 'sve']],
  [
    [...BASE, 'sve'],
    [...BASE, 'sve'],
  ],
  [BASE, [...BASE, 'ptrauth-address']],
  [[...BASE, 'ptrauth-address', 'ptrauth-generic'], BASE],
  [[...BASE, 'el1-32bit', 'sve'], BASE],
]

function listsRegisters(kvm: SystemFd, note: Note): void {
  for (const features of featureSets) {
    withVcpu(kvm, features, (vcpu) => {
      const ids = listRegisters(vcpu)
      note(`KVM_GET_REG_LIST with ${features.join('+')}`, [...ids].map(hex))
      for (const room of [
        0n,
        1n,
        BigInt(ids.length - 1),
        BigInt(ids.length),
        BigInt(ids.length + 1),
        1n << 32n,
        (1n << 32n) + 4096n,
      ]) {
        const list = new BigUint64Array(4097)
        list[0] = room
        note(`KVM_GET_REG_LIST with room for ${hex(room)} and ${features.join('+')}`, vcpu.getRegList(list))
        note(`its count`, list[0])
      }
    })
  }
}

const featureSets: VcpuFeature[][] = [
  [],
  BASE,
  [...BASE, 'power-off'],
  [...BASE, 'pmu-v3'],
  [...BASE, 'el1-32bit'],
  [...BASE, 'sve'],
  [...BASE, 'ptrauth-address', 'ptrauth-generic'],
  [...BASE, 'pmu-v3', 'sve', 'ptrauth-address', 'ptrauth-generic'],
]

function readsAndWritesBackEveryRegister(kvm: SystemFd, note: Note): void {
  for (const features of featureSets) {
    withVcpu(kvm, features, (vcpu, vm) => {
      for (const id of listRegisters(vcpu)) {
        const name = registerName(id)
        if (name.endsWith('TIMER_CNT')) continue
        const value = vcpu.getOneReg(id)
        note(`${name} with ${features.join('+')}`, value)
        if (typeof value === 'bigint') note(`${name} written back`, vcpu.setOneReg(id, value))
        note(`${name} at null`, [vcpu.getOneRegAtNull(id), vcpu.setOneRegAtNull(id)].map(text))
        note(`${name} after it`, vcpu.getOneReg(id))
      }
      onVcpu(vm, 1, (sibling) => {
        initialise(vm, sibling, features)
        for (const id of listRegisters(sibling)) {
          if (!registerName(id).endsWith('TIMER_CNT'))
            note(`${registerName(id)} of a sibling`, sibling.getOneReg(id))
        }
      })
    })
  }
}

function tellsWhetherATimerHasFired(kvm: SystemFd, note: Note): void {
  withVcpu(kvm, BASE, (vcpu) => {
    for (const timer of ['KVM_REG_ARM_TIMER', 'KVM_REG_ARM_PTIMER']) {
      const [control, compare] = [encodeRegister(`${timer}_CTL`), encodeRegister(`${timer}_CVAL`)]
      for (const [compareValue, controlValue] of [
        [1n << 62n, 0n],
        [1n << 62n, 7n],
        [0n, 3n],
        [1n << 62n, 4n],
        [0n, 0n],
      ] as const) {
        const outcomes = [vcpu.setOneReg(compare, compareValue), vcpu.setOneReg(control, controlValue)]
        note(`${timer} ${compareValue} = ${controlValue}`, [...outcomes, vcpu.getOneReg(control)].map(text))
      }
    }
  })
}

function answersOddIds(kvm: SystemFd, note: Note): void {
  for (const features of [BASE, [...BASE, 'sve'] as VcpuFeature[]]) {
    withVcpu(kvm, features, (vcpu) => {
      for (const id of ODD_IDS) askOneRegister(`with ${features.join('+')}`, vcpu, id, 0n, note)
    })
  }
}

function writesFirmwareRegisters(kvm: SystemFd, note: Note): void {
  for (const features of [[], BASE]) {
    withVcpu(kvm, features, (vcpu, vm) => {
      onVcpu(vm, 1, (sibling) => {
        initialise(vm, sibling, features)
        const writeAll = (when: string, writer: VcpuFd): void => {
          for (const id of FIRMWARE) {
            const before = vcpu.getOneReg(id)
            for (const value of FIRMWARE_VALUES) {
              note(`${registerName(id)} = ${hex(value)} ${when}`, writer.setOneReg(id, value))
              note(`${registerName(id)} after it`, [vcpu.getOneReg(id), sibling.getOneReg(id)].map(text))
            }
            if (typeof before === 'bigint')
              note(`${registerName(id)} restored ${when}`, writer.setOneReg(id, before))
          }
        }
        const what = `with ${features.join('+') || 'nothing'}`
        writeAll(`${what} before the run`, vcpu)
        writeAll(`${what} before the run, from a sibling`, sibling)
        vcpu.setOneReg(FIRMWARE[6]!, 1n)
        note(`KVM_RUN ${what}`, freeze(vcpu))
        writeAll(`${what} after the run`, vcpu)
        writeAll(`${what} after the run, from a sibling`, sibling)
        note('init again after the run', initialise(vm, vcpu, features))
        writeAll(`${what} after the run and another init`, vcpu)
        onVcpu(vm, 2, (late) => {
          initialise(vm, late, features)
          writeAll(`${what} from a vCPU made after the run`, late)
        })
      })
    })
  }
}

function writesFeatureIdRegisters(kvm: SystemFd, note: Note): void {
  for (const features of [BASE, [...BASE, 'pmu-v3'] as VcpuFeature[], [...BASE, 'sve'] as VcpuFeature[]]) {
    withVcpu(kvm, features, (vcpu, vm) => {
      const ids = [...listRegisters(vcpu)].filter(isFeatureIdRegister)
      const values = new Map(ids.map((id) => [id, vcpu.getOneReg(id)]))
      const writeAll = (when: string): void => {
        for (const [id, value] of values) {
          if (typeof value !== 'bigint') continue
          for (let nibble = 0n; nibble < 16n; nibble++) {
            for (const change of [1n, 0xfn]) {
              const other = value ^ (change << (4n * nibble))
              note(`${registerName(id)} = ${hex(other)} ${when}`, vcpu.setOneReg(id, other))
              note(`${registerName(id)} after it`, vcpu.getOneReg(id))
              note(`${registerName(id)} restored ${when}`, vcpu.setOneReg(id, value))
            }
          }
        }
      }
      writeAll(`with ${features.join('+')} before the run`)
      onVcpu(vm, 1, (sibling) => {
        initialise(vm, sibling, features)
        for (const [id, value] of values) {
          if (typeof value !== 'bigint') continue
          // Turning the lowest feature off is what a baseline does; a sibling must see it.
          vcpu.setOneReg(id, value & ~0xfn)
          note(`${registerName(id)} of a sibling`, sibling.getOneReg(id))
          vcpu.setOneReg(id, value)
        }
      })
      if (!features.includes('pmu-v3')) {
        note('KVM_RUN', freeze(vcpu))
        writeAll(`with ${features.join('+')} after the run`)
      }
    })
  }
}

function withVcpu(
  kvm: SystemFd,
  features: VcpuFeature[],
  experiment: (vcpu: VcpuFd, vm: VmFd) => void,
): void {
  onVm(kvm, 0n, (vm) =>
    onVcpu(vm, 0, (vcpu) => {
      if (initialise(vm, vcpu, features) === 0) experiment(vcpu, vm)
    }),
  )
}

function askOneRegister(when: string, vcpu: VcpuFd, id: bigint, value: bigint, note: Note): void {
  note(`KVM_GET_ONE_REG ${hex(id)} ${when}`, vcpu.getOneReg(id))
  note(`KVM_GET_ONE_REG ${hex(id)} at null ${when}`, vcpu.getOneRegAtNull(id))
  note(`KVM_SET_ONE_REG ${hex(id)} at null ${when}`, vcpu.setOneRegAtNull(id))
  if (registerWidth(id) <= 2048)
    note(`KVM_SET_ONE_REG ${hex(id)} = ${hex(value)} ${when}`, vcpu.setOneReg(id, value))
}

/** What can be seen of a vCPU whatever became of its init. */
function stateOf(vcpu: VcpuFd): { psci: string; count: string } {
  const list = new BigUint64Array(1)
  const outcome = vcpu.getRegList(list)
  return { psci: text(vcpu.getOneReg(FIRMWARE[0]!)), count: `${text(outcome)} ${list[0]}` }
}

function initRaw(vm: VmFd, vcpu: VcpuFd, words: number[]): number {
  const init = new Uint32Array(8)
  vm.getPreferredTarget(init)
  return vcpu.init(init[0]!, words)
}

function text(answer: bigint | number | object | null): string {
  if (typeof answer === 'bigint') return hex(answer)
  if (typeof answer === 'number') return answer < 0 ? errnoName(answer) : `${answer}`
  if (answer !== null && 'close' in answer) return 'a handle'
  return JSON.stringify(answer)
}

function hex(value: bigint): string {
  return `0x${value.toString(16)}`
}
