/**
 * The calls a guest makes, put to a real kernel and to the simulator of its report. Answers that hang on time or chance are
 * told by the rule they keep.
 */
import type { Backend, Conduit, SystemFd, VcpuFd, VmFd } from '../../lib/backend.js'
import { initialise, onVcpu, onVm } from '../../lib/probe/rig.js'
import { functionIds, functionName, hypercallFunctions } from '../../lib/hypercalls/index.js'
import { errnoName } from '../../lib/kvm/errors.js'
import { decodeExit } from '../../lib/kvm/exits.js'
import { callFromGuest, mapStub } from '../../lib/kvm/guest-call.js'
import { encodeRegister } from '../../lib/registers/index.js'
import {
  capabilities,
  errnos,
  KVM_ARM_VCPU_PVTIME_CTRL,
  KVM_ARM_VCPU_PVTIME_IPA,
  KVM_ARM_VM_SMCCC_CTRL,
  KVM_ARM_VM_SMCCC_FILTER,
  mpStates,
  type VcpuFeature,
} from '../../lib/uapi.js'
import type { Answer } from './scenarios.js'

type Note = (question: string, answer: string) => void

/** Milliseconds: long enough for a call that comes back, and as long as one that does not is waited for. */
const PATIENCE = 5000
const WAIT = 80

const PSCI_VERSION = encodeRegister('KVM_REG_ARM_PSCI_VERSION')
const BITMAPS = [
  ['KVM_REG_ARM_STD_BMAP', 2],
  ['KVM_REG_ARM_STD_HYP_BMAP', 2],
  ['KVM_REG_ARM_VENDOR_HYP_BMAP', 4],
  ['KVM_REG_ARM_VENDOR_HYP_BMAP_2', 4],
] as const
const PSCI_VERSIONS = [2n, 0x10000n, 0x10001n, 0x10002n, 0x10003n]
const STOLEN_TIME = 0x0f00_8000n

/** Calls after which the guest waits. */
const WAITING = new Set([0x8400_0001, 0xc400_0001, 0x8400_0002, 0x95c1_ba5f])

/** Every known id, its neighbours, and its twin of the other width. */
const ids = [
  ...new Set(
    hypercallFunctions
      .flatMap(({ id }) => [id - 1, id, id + 1, (id ^ 0x4000_0000) >>> 0])
      .map((id) => id >>> 0),
  ),
  // Through the gate for PSCI's range, and not PSCI's; SMCCC's hint that no SVE state is live; other owners.
  0x0400_0003,
  0x8401_0000,
  0x8402_0003,
  0x8400_001f,
  0x8400_0020,
  0xc400_001f,
  0x8001_0000,
  0x8000_0000 | 0x1_0001,
  0x8100_0000,
  0x8200_0000,
  0x8300_0000,
  0xb200_0000,
  0xbf00_ff01,
  0,
  1,
  0x7fff_ffff,
  0xffff_ffff,
  0x8500_0020,
].map((id) => id >>> 0)

const JUNK = [0xaaaa_bbbb_cccc_0001n, 0xaaaa_bbbb_cccc_0002n, 0xaaaa_bbbb_cccc_0003n]

export function askGuestCalls(backend: Backend): Answer[] {
  const kvm = backend.open()
  if (typeof kvm === 'number') throw new Error(`open: ${errnoName(kvm)}`)
  const answers: Answer[] = []
  try {
    for (const scenario of scenarios) scenario(kvm, (question, answer) => answers.push({ question, answer }))
  } finally {
    kvm.close()
  }
  return answers
}

const scenarios: ((kvm: SystemFd, note: Note) => void)[] = [
  callsEverything,
  callsUnderEveryElection,
  asksWhatIsThere,
  drawsRandomBits,
  asksForStolenTime,
  asksForTime,
  startsAndStopsCpus,
  stopsTheMachine,
  filtersCalls,
  takesOddArguments,
]

/** A VM with the stub guest and initialised vCPUs. */
function onGuest(
  kvm: SystemFd,
  features: readonly (readonly VcpuFeature[])[],
  prepare: (vm: VmFd) => void,
  work: (vcpus: VcpuFd[], vm: VmFd) => void,
): void {
  onVm(kvm, 0n, (vm) => {
    prepare(vm)
    const stub = mapStub(kvm, vm)
    if (typeof stub === 'number') throw new Error(`stub: ${errnoName(stub)}`)
    const vcpus: VcpuFd[] = []
    try {
      for (const [id, set] of features.entries()) {
        const vcpu = vm.createVcpu(id)
        if (typeof vcpu === 'number') throw new Error(`KVM_CREATE_VCPU ${errnoName(vcpu)}`)
        vcpus.push(vcpu)
        const outcome = initialise(vm, vcpu, set)
        if (outcome < 0) throw new Error(`KVM_ARM_VCPU_INIT ${errnoName(outcome)}`)
      }
      work(vcpus, vm)
    } finally {
      for (const vcpu of vcpus) vcpu.close()
      stub.close()
    }
  })
}

const nothing = (): void => undefined
const PSCI: readonly VcpuFeature[] = ['psci-0.2']

/** What came of a call, by the rule where time or chance are in it. */
function call(vcpu: VcpuFd, conduit: Conduit, args: readonly bigint[], timeout?: number): string {
  const id = Number(BigInt.asUintN(32, args[0]!))
  const isOff = vcpu.getMpState() !== mpStates.runnable
  const patience = timeout ?? (isOff || WAITING.has(id) ? WAIT : PATIENCE)
  const found = callFromGuest(vcpu, { conduit, args }, () => vcpu.runSync(patience))
  if (typeof found === 'number') return errnoName(found)
  const { outcome, returned, x } = found
  // On a slow machine the time may be over before the guest has called.
  const isTooEarly = !isOff && outcome === -errnos.EINTR && x[0] === args[0]
  if (isTooEarly && patience < PATIENCE) return call(vcpu, conduit, args, 2 * patience)
  const words = told(id, x, args[1] ?? 0n)
  if (returned) return words
  const how = outcome < 0 ? errnoName(outcome) : exitText(vcpu)
  return `${how} with ${words}`
}

function told(id: number, x: readonly bigint[], argument: bigint): string {
  const plain = x.map((word) => word.toString(16)).join(' ')
  if (x[0]! >= 1n << 63n) return plain
  if (id === functionIds.KVM_PTP) {
    const wall = Number((x[0]! << 32n) | x[1]!) / 1e6
    const isWord = x.every((word) => word < 1n << 32n)
    return isWord && Math.abs(wall - Date.now()) < 60_000 ? 'the time' : plain
  }
  const width = id === functionIds.TRNG_RND32 ? 32n : id === functionIds.TRNG_RND64 ? 64n : 0n
  if (width !== 0n && x[0] === 0n) {
    const bits = (x[1]! << (2n * width)) | (x[2]! << width) | x[3]!
    const fits = x.every((word) => word < 1n << width) && bits < 1n << BigInt.asUintN(32, argument)
    const isRandom = BigInt.asUintN(32, argument) < 64n || bits !== 0n
    return fits && isRandom ? 'random bits' : plain
  }
  return plain
}

function exitText(vcpu: VcpuFd): string {
  return JSON.stringify(decodeExit(new DataView(vcpu.runPage)), (_, value: unknown) =>
    typeof value === 'bigint' ? value.toString(16) : value,
  )
}

function named(id: number): string {
  return `${functionName(id)} (${id.toString(16)})`
}

/** Puts the machine on its feet again after a call that stopped it. */
function revive(vcpus: readonly VcpuFd[]): void {
  for (const vcpu of vcpus) vcpu.setMpState(mpStates.runnable)
}

function callsEverything(kvm: SystemFd, note: Note): void {
  const setups: [string, readonly VcpuFeature[], bigint | null][] = [
    ['PSCI 0.1', [], null],
    ...PSCI_VERSIONS.map((version): [string, readonly VcpuFeature[], bigint] => [
      `PSCI ${version.toString(16)}`,
      PSCI,
      version,
    ]),
  ]
  for (const [what, features, version] of setups) {
    onGuest(kvm, [features, features], nothing, ([vcpu, other]) => {
      if (version !== null) {
        const outcome = vcpu!.setOneReg(PSCI_VERSION, version)
        note(`${what} is chosen`, errnoName(outcome))
        if (outcome < 0) return
      }
      for (const conduit of ['hvc', 'smc'] as const) {
        for (const id of ids) {
          const args = [BigInt(id), ...JUNK]
          note(`${conduit} ${named(id)} with junk, ${what}`, call(vcpu!, conduit, args))
          note(`states after it`, [vcpu!, other!].map((each) => each.getMpState()).join())
          revive([vcpu!, other!])
          if (WAITING.has(id)) continue
          note(`${conduit} ${named(id)}, ${what}`, call(vcpu!, conduit, [BigInt(id)]))
          revive([vcpu!, other!])
        }
      }
    })
  }
}

/** What a guest discovers services by, which must not hang on PSCI's version, nor that on them. */
const DISCOVERY: readonly (readonly number[])[] = [
  [functionIds.SMCCC_VERSION],
  [functionIds.SMCCC_ARCH_FEATURES, functionIds.PV_TIME_FEATURES],
  [functionIds.TRNG_VERSION],
  [functionIds.TRNG_FEATURES, functionIds.TRNG_RND64],
  [functionIds.TRNG_GET_UUID],
  [functionIds.TRNG_RND32, 96],
  [functionIds.TRNG_RND64, 192],
  [functionIds.PV_TIME_FEATURES, functionIds.PV_TIME_ST],
  [functionIds.PV_TIME_ST],
  [functionIds.VENDOR_HYP_CALL_UID],
  [functionIds.KVM_FEATURES],
  [functionIds.KVM_PTP],
  [functionIds.KVM_DISCOVER_IMPL_VER],
  [functionIds.KVM_DISCOVER_IMPL_CPUS],
  [0x8400_0000],
  [0x8400_000a, functionIds.SMCCC_VERSION],
]

function callsUnderEveryElection(kvm: SystemFd, note: Note): void {
  for (const election of elections()) {
    for (const features of [PSCI, []]) {
      onGuest(kvm, [features], nothing, ([vcpu]) => {
        const outcomes = BITMAPS.map(([name], index) =>
          errnoName(vcpu!.setOneReg(encodeRegister(name), BigInt(election[index]!))),
        )
        note(`election ${election.join()}`, outcomes.join())
        if (outcomes.some((outcome, index) => outcome !== 'ERRNO_0' && election[index] !== 0)) return
        // PSCI's version may change while the guest runs.
        for (const version of features.length > 0 ? PSCI_VERSIONS : [1n]) {
          if (vcpu!.setOneReg(PSCI_VERSION, version) < 0) continue
          for (const args of DISCOVERY) {
            const answer = call(vcpu!, 'hvc', args.map(BigInt))
            note(
              `${args.map(named).join(' of ')} under ${election.join()}, PSCI ${version.toString(16)}`,
              answer,
            )
          }
        }
      })
    }
  }
}

/** Every combination of the bits there are. */
function elections(): number[][] {
  return BITMAPS.reduce<number[][]>(
    (lists, [, count]) =>
      lists.flatMap((list) => Array.from({ length: count }, (_, value) => [...list, value])),
    [[]],
  )
}

function asksWhatIsThere(kvm: SystemFd, note: Note): void {
  const questions = [
    functionIds.SMCCC_ARCH_FEATURES,
    functionIds.PV_TIME_FEATURES,
    functionIds.TRNG_FEATURES,
    0x8400_000a,
  ]
  onGuest(kvm, [PSCI], nothing, ([vcpu]) => {
    for (const question of questions) {
      for (const id of ids) {
        note(`${named(question)} of ${named(id)}`, call(vcpu!, 'hvc', [BigInt(question), BigInt(id)]))
        const wide = 0x1_0000_0000n | BigInt(id)
        note(`${named(question)} of 1${named(id)}`, call(vcpu!, 'hvc', [BigInt(question), wide]))
      }
    }
  })
  for (const version of PSCI_VERSIONS) {
    for (const suspend of [false, true]) {
      const enable = (vm: VmFd): void => {
        if (suspend)
          note('suspend enabled', errnoName(vm.enableCap(capabilities.KVM_CAP_ARM_SYSTEM_SUSPEND, 0, [])))
      }
      onGuest(kvm, [PSCI], enable, ([vcpu]) => {
        if (vcpu!.setOneReg(PSCI_VERSION, version) < 0) return
        for (let number = 0; number < 0x20; number++) {
          for (const base of [0x8400_0000, 0xc400_0000]) {
            const answer = call(vcpu!, 'hvc', [0x8400_000an, BigInt(base + number)])
            note(
              `PSCI_FEATURES of ${named(base + number)}, ${version.toString(16)}, suspend ${suspend}`,
              answer,
            )
          }
        }
        for (const id of [0x8400_000e, 0xc400_000e]) {
          note(
            `${named(id)}, ${version.toString(16)}, suspend ${suspend}`,
            call(vcpu!, 'hvc', [BigInt(id), ...JUNK]),
          )
        }
      })
    }
  }
}

function drawsRandomBits(kvm: SystemFd, note: Note): void {
  onGuest(kvm, [PSCI], nothing, ([vcpu]) => {
    for (const id of [functionIds.TRNG_RND32, functionIds.TRNG_RND64]) {
      for (const bits of [0, 1, 31, 32, 33, 63, 64, 65, 95, 96, 97, 128, 191, 192, 193, 0xffff_ffff]) {
        note(`${named(id)} ${bits} bits`, call(vcpu!, 'hvc', [BigInt(id), BigInt(bits)]))
      }
      note(`${named(id)} wide count`, call(vcpu!, 'hvc', [BigInt(id), 0x1_0000_0020n]))
    }
  })
}

function asksForStolenTime(kvm: SystemFd, note: Note): void {
  onGuest(kvm, [PSCI, PSCI], nothing, ([vcpu, other], vm) => {
    const address = new Uint8Array(BigUint64Array.of(STOLEN_TIME).buffer)
    const outcome = vcpu!.setDeviceAttr(KVM_ARM_VCPU_PVTIME_CTRL, KVM_ARM_VCPU_PVTIME_IPA, address)
    note('KVM_ARM_VCPU_PVTIME_IPA', errnoName(outcome))
    note('a VM attribute', errnoName(vm.hasDeviceAttr(KVM_ARM_VM_SMCCC_CTRL, KVM_ARM_VM_SMCCC_FILTER)))
    for (const [which, asker] of [vcpu!, other!].entries()) {
      for (const feature of [functionIds.PV_TIME_FEATURES, functionIds.PV_TIME_ST, functionIds.TRNG_RND64]) {
        for (const high of [0n, 1n << 32n]) {
          const args = [BigInt(functionIds.PV_TIME_FEATURES), high | BigInt(feature)]
          note(`PV_TIME_FEATURES ${args[1]} of vCPU ${which}`, call(asker, 'hvc', args))
        }
      }
      note(`PV_TIME_ST of vCPU ${which}`, call(asker, 'hvc', [BigInt(functionIds.PV_TIME_ST)]))
      note(`PV_TIME_ST of vCPU ${which} by smc`, call(asker, 'smc', [BigInt(functionIds.PV_TIME_ST)]))
    }
  })
}

function asksForTime(kvm: SystemFd, note: Note): void {
  onGuest(kvm, [PSCI], nothing, ([vcpu]) => {
    for (const counter of [0n, 1n, 2n, 1n << 32n, (1n << 32n) | 1n]) {
      note(`KVM_PTP ${counter}`, call(vcpu!, 'hvc', [BigInt(functionIds.KVM_PTP), counter]))
    }
  })
}

const CPU_ON = [0x8400_0003, 0xc400_0003]
const AFFINITY_INFO = [0x8400_0004, 0xc400_0004]
const X0 = encodeRegister('x0')
const X5 = encodeRegister('x5')
const PC = encodeRegister('pc')
const SP_EL1 = encodeRegister('sp_el1')

function startsAndStopsCpus(kvm: SystemFd, note: Note): void {
  const affinities = [
    0n,
    1n,
    2n,
    3n,
    0x100n,
    1n << 24n,
    1n << 31n,
    (1n << 31n) | 1n,
    1n << 32n,
    (1n << 32n) | 1n,
    1n << 40n,
  ]
  for (const features of [PSCI, []]) {
    const off: VcpuFeature[] = [...features, 'power-off']
    const functions = features.length > 0 ? [...CPU_ON, 0x95c1_ba60] : [0x95c1_ba60, ...CPU_ON]
    const what = `PSCI ${features.length > 0 ? 'latest' : '0.1'}`
    for (const id of functions) {
      onGuest(kvm, [features, off, off], nothing, ([vcpu, second, third], vm) => {
        const states = (): string => [vcpu!, second!, third!].map((each) => each.getMpState()).join()
        const look = (when: string): void => {
          for (const affinity of affinities) {
            for (const level of [0n, 1n, 2n, 3n, 4n, 1n << 32n]) {
              for (const info of AFFINITY_INFO) {
                const answer = call(vcpu!, 'hvc', [BigInt(info), affinity, level])
                note(`${named(info)} ${affinity} level ${level} ${when}, ${what}`, answer)
              }
            }
          }
        }
        note(`states, ${what}`, states())
        if (id === functions[0]) look('while others are off')
        second!.setOneReg(X5, 0x55n)
        second!.setOneReg(SP_EL1, 0x77n)
        for (const affinity of affinities.toReversed()) {
          const args = [BigInt(id), affinity, 0x1_0f00_0000n, 0xffff_0000_1234n]
          note(`${named(id)} of ${affinity}, ${what}`, call(vcpu!, 'hvc', args))
          note('states after it', states())
        }
        note(`again by smc, ${what}`, call(vcpu!, 'smc', [BigInt(id), 1n, 0n, 0n]))
        for (const [name, register] of Object.entries({ pc: PC, x0: X0, x5: X5, sp: SP_EL1 })) {
          note(
            `${name} of those started`,
            [second!, third!].map((each) => `${each.getOneReg(register)}`).join(),
          )
        }
        if (id === functions[0]) look('while others are on')
        note(`a call of the second, ${what}`, call(second!, 'hvc', [0x8000_0000n]))
        note(`a call of the third, ${what}`, call(third!, 'hvc', [0x8400_0000n]))
        for (const offId of [0x8400_0002, 0x95c1_ba5f]) {
          note(`${named(offId)} of the second, ${what}`, call(second!, 'hvc', [BigInt(offId), 1n, 2n, 3n]))
          note('states after it', states())
          note('x5 after it', `${second!.getOneReg(X5)}`)
          note('a call while off', call(second!, 'hvc', [0x8000_0000n], WAIT))
          note(`${named(id)} after it`, call(vcpu!, 'hvc', [BigInt(id), 1n, 0x1000n, 0x2000n]))
          note(`init while started, ${what}`, errnoName(initialise(vm, second!, off)))
          note('states after it', states())
          note('pc after it', `${second!.getOneReg(PC)} ${second!.getOneReg(X0)}`)
          revive([second!])
        }
        note('a call in the end', call(second!, 'hvc', [0x8000_0000n]))
      })
    }
  }
  onGuest(kvm, [PSCI], nothing, ([vcpu], vm) =>
    onVcpu(vm, 1, (bare) => {
      note('AFFINITY_INFO of a vCPU not initialised', call(vcpu!, 'hvc', [0x8400_0004n, 1n, 0n]))
      note('AFFINITY_INFO of itself', call(vcpu!, 'hvc', [0x8400_0004n, 0n, 0n]))
      note('CPU_ON of a vCPU not initialised', call(vcpu!, 'hvc', [0x8400_0003n, 1n, 0n, 0n]))
      note('its state', `${bare.getMpState()}`)
    }),
  )
}

function stopsTheMachine(kvm: SystemFd, note: Note): void {
  const calls: [number, bigint[]][] = [
    ...[0x8400_0008, 0x8400_0009].map((id): [number, bigint[]] => [id, JUNK]),
    ...[0x8400_0012, 0xc400_0012, 0x8400_0015, 0xc400_0015].flatMap((id) =>
      [
        [0n, 0n],
        [0n, 5n],
        [1n, 0n],
        [1n, 5n],
        [1n, 1n << 32n],
        [2n, 0n],
        [1n << 32n, 0n],
        [(1n << 32n) | 1n, 0n],
        [0x7fff_ffffn, 0n],
        [0x8000_0000n, 7n],
        [0xffff_ffffn, 7n],
        [0xffff_ffff_8000_0000n, 7n],
      ].map((args): [number, bigint[]] => [id, [...args, 0xaaaa_bbbb_cccc_ddddn]]),
    ),
  ]
  onGuest(kvm, [PSCI, PSCI], nothing, ([vcpu, other]) => {
    for (const [id, args] of calls) {
      note(`${named(id)} ${args.join()}`, call(vcpu!, 'hvc', [BigInt(id), ...args]))
      const states = [vcpu!, other!].map((each) => each.getMpState())
      note('states after it', states.join())
      revive([vcpu!])
      if (states[1] !== 0) note('the sibling', call(other!, 'hvc', [0x8000_0000n], 30))
      note('the caller', call(vcpu!, 'hvc', [0x8000_0000n]))
      revive([other!])
    }
  })
}

function filtersCalls(kvm: SystemFd, note: Note): void {
  const set = (vm: VmFd, base: number, count: number, action: number): void => {
    const filter = new Uint8Array(24)
    const view = new DataView(filter.buffer)
    view.setUint32(0, base, true)
    view.setUint32(4, count, true)
    filter[8] = action
    note(`filter ${base.toString(16)}+${count} ${action}`, errnoName(vm.setDeviceAttr(0, 0n, filter)))
  }
  for (const hidden of [false, true]) {
    const prepare = (vm: VmFd): void => {
      set(vm, 0x8400_0000, 1, 1)
      set(vm, 0x8400_0008, 2, 2)
      set(vm, 0x8400_0050, 2, 2)
      set(vm, 0x8400_0052, 1, 0)
      set(vm, 0x8600_0000, 1, 1)
      set(vm, 0x8600_0001, 1, 2)
      set(vm, 0xc600_0040, 2, 2)
      set(vm, 0x95c1_ba5e, 4, 2)
      set(vm, 0x0000_0000, 16, 2)
      set(vm, 0xffff_ffff, 1, 2)
      set(vm, 0x7fff_fffe, 2, 1)
    }
    onGuest(kvm, [PSCI], prepare, ([vcpu]) => {
      if (hidden) for (const [name] of BITMAPS) vcpu!.setOneReg(encodeRegister(name), 0n)
      for (const id of [...ids, 0x1_8400_0050]) {
        if (WAITING.has(id)) continue
        for (const conduit of ['hvc', 'smc'] as const) {
          const answer = call(vcpu!, conduit, [BigInt(id), 1n, 2n, 3n])
          note(`${conduit} ${id.toString(16)} filtered, hidden ${hidden}`, answer)
          revive([vcpu!])
        }
      }
    })
  }
}

function takesOddArguments(kvm: SystemFd, note: Note): void {
  onGuest(kvm, [PSCI], nothing, ([vcpu]) => {
    for (const id of ids.filter((each) => !WAITING.has(each))) {
      for (const conduit of ['hvc', 'smc'] as const) {
        const args = [0xdead_beef_0000_0000n | BigInt(id), 0n, 0xffff_ffff_ffff_ffffn, 1n << 63n, 4n, 5n, 6n]
        note(`${conduit} ${named(id)} with bits above`, call(vcpu!, conduit, args))
        revive([vcpu!])
      }
    }
  })
}
