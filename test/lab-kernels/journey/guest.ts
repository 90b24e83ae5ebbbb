/**
 * A guest that notices when its hypervisor changes under it. As it starts it makes a few hypercalls and reads a few ID registers, as a
 * kernel does that looks for what it can use; from then on it uses what it found and tells each answer that is another than before.
 */
import assert from 'node:assert/strict'
import { functionIds, functionName } from '../../../lib/hypercalls/index.js'
import type { GuestMemory, Kvm, Vcpu, Vm } from '../../../lib/kvm/index.js'

const MEMORY = 0x4000_0000n
const MEMORY_SIZE = 0x1_0000
const CALLS = 0x1000
const ID_REGISTERS = 0x2000
/** Where no memory is: the guest tells by storing there. */
const DEVICE = MEMORY + BigInt(MEMORY_SIZE)

/** x19: the calls, x20: how many, x21: the device, x24: what the ID registers were, x26: rounds made. */
const program = Uint32Array.of(
  0xd2800016, // mov x22, #0
  0x8b161677, // discover: add x23, x19, x22, lsl #5
  0xa94006e0, // ldp x0, x1, [x23]
  0xd4000002, // hvc #0
  0xf9000ae0, // str x0, [x23, #16]
  0x910006d6, // add x22, x22, #1
  0xeb1402df, // cmp x22, x20
  0x54ffff43, // b.lo discover
  0xaa1803f9, // mov x25, x24
  0x9400001c, // bl identify
  0xd2800016, // round: mov x22, #0
  0x8b161677, // call: add x23, x19, x22, lsl #5
  0xa94006e0, // ldp x0, x1, [x23]
  0xd4000002, // hvc #0
  0xf9400ae9, // ldr x9, [x23, #16]
  0xeb09001f, // cmp x0, x9
  0x54000060, // b.eq same
  0xf9000ae0, // str x0, [x23, #16]
  0xf90006b6, // str x22, [x21, #8]
  0x910006d6, // same: add x22, x22, #1
  0xeb1402df, // cmp x22, x20
  0x54fffec3, // b.lo call
  0x91010319, // add x25, x24, #64
  0x9400000e, // bl identify
  0xd2800016, // mov x22, #0
  0xf8767b09, // compare: ldr x9, [x24, x22, lsl #3]
  0xf8767b2a, // ldr x10, [x25, x22, lsl #3]
  0xeb0a013f, // cmp x9, x10
  0x54000060, // b.eq equal
  0xf8367b0a, // str x10, [x24, x22, lsl #3]
  0xf9000ab6, // str x22, [x21, #16]
  0x910006d6, // equal: add x22, x22, #1
  0xf10022df, // cmp x22, #8
  0x54ffff03, // b.lo compare
  0x9100075a, // add x26, x26, #1
  0xf90002ba, // str x26, [x21]
  0x17ffffe6, // b round
  0xd5380009, // identify: mrs x9, MIDR_EL1
  0xd538074a, // mrs x10, ID_AA64MMFR2_EL1
  0xa9002b29, // stp x9, x10, [x25]
  0xd5380409, // mrs x9, ID_AA64PFR0_EL1
  0xd538050a, // mrs x10, ID_AA64DFR0_EL1
  0xa9012b29, // stp x9, x10, [x25, #16]
  0xd5380609, // mrs x9, ID_AA64ISAR0_EL1
  0xd538062a, // mrs x10, ID_AA64ISAR1_EL1
  0xa9022b29, // stp x9, x10, [x25, #32]
  0xd5380709, // mrs x9, ID_AA64MMFR0_EL1
  0xd538072a, // mrs x10, ID_AA64MMFR1_EL1
  0xa9032b29, // stp x9, x10, [x25, #48]
  0xd65f03c0, // ret
)

/** What `identify` reads, in its order. */
const idRegisters = [
  'MIDR_EL1',
  'ID_AA64MMFR2_EL1',
  'ID_AA64PFR0_EL1',
  'ID_AA64DFR0_EL1',
  'ID_AA64ISAR0_EL1',
  'ID_AA64ISAR1_EL1',
  'ID_AA64MMFR0_EL1',
  'ID_AA64MMFR1_EL1',
]

/** Calls whose x0 is the same every time, on a host that does not change: their function and x1. */
const calls: readonly (readonly [functionId: number, argument: bigint])[] = [
  [0x8400_0000, 0n], // PSCI_VERSION
  [functionIds.SMCCC_VERSION, 0n],
  [functionIds.TRNG_VERSION, 0n],
  [0xc400_0053, 64n], // TRNG_RND64: 0, whatever the bits in x1 to x3
  [functionIds.SMCCC_ARCH_FEATURES, BigInt(functionIds.PV_TIME_FEATURES)],
  [functionIds.PV_TIME_FEATURES, 0xc500_0021n],
  [functionIds.KVM_FEATURES, 0n],
]

/** x0 of a call that nobody answers. */
const NOT_SUPPORTED = 0xffff_ffff_ffff_ffffn

/** Gives a VM the memory the guest lives in, empty or as it was. */
export function giveMemory(kvm: Kvm, vm: Vm, contents?: Uint8Array): GuestMemory {
  const memory = kvm.createMemory(MEMORY_SIZE)
  if (contents) memory.write(0, contents)
  vm.mapMemory(0, { address: MEMORY, memory })
  return memory
}

/** Puts the guest into a memory and a vCPU before its first instruction. */
export function load(memory: GuestMemory, { registers }: Vcpu): void {
  memory.write(0, new Uint8Array(program.buffer))
  const table = BigUint64Array.from(calls.flatMap(([id, argument]) => [BigInt(id), argument, 0n, 0n]))
  memory.write(CALLS, new Uint8Array(table.buffer))
  registers.set('pc', MEMORY)
  registers.set('x19', MEMORY + BigInt(CALLS))
  registers.set('x20', BigInt(calls.length))
  registers.set('x21', DEVICE)
  registers.set('x24', MEMORY + BigInt(ID_REGISTERS))
  registers.set('x26', 0n)
}

/** What the guest found when it started, in words. */
export function discovered(memory: GuestMemory): string[] {
  return calls.map((_, index) => `${callName(index)}: ${answerText(word(memory, CALLS + 32 * index + 16))}`)
}

/** Lets the guest go `rounds` times through all it uses; what it says has changed, in words. */
export function live(vcpu: Vcpu, memory: GuestMemory, rounds: number): string[] {
  const changes: string[] = []
  for (let round = 0; round < rounds;) {
    const exit = vcpu.runSync({ timeout: 60_000 })
    if (exit.reason !== 'mmio') assert.fail(`the guest stopped: ${exit.reason}`)
    const index = Number(exit.data)
    if (exit.address === DEVICE) round++
    else if (exit.address === DEVICE + 8n)
      changes.push(`${callName(index)} is now ${answerText(word(memory, CALLS + 32 * index + 16))}`)
    else changes.push(`${idRegisters[index]} is now 0x${word(memory, ID_REGISTERS + 8 * index).toString(16)}`)
  }
  // KVM steps over the last store when it is entered again, and what is saved must lie behind it.
  vcpu.freeze()
  return changes
}

function callName(index: number): string {
  const [functionId, argument] = calls[index]!
  const about = argument > 0xffffn ? `(${functionName(Number(argument))})` : ''
  return `${functionName(functionId)}${about}`
}

function answerText(x0: bigint): string {
  return x0 === NOT_SUPPORTED ? 'NOT_SUPPORTED' : `0x${x0.toString(16)}`
}

function word(memory: GuestMemory, offset: number): bigint {
  return new DataView(memory.read(offset, 8).buffer).getBigUint64(0, true)
}
