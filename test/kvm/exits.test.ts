import assert from 'node:assert/strict'
import { it } from 'vitest'
import { decodeExit, type Exit } from '../../lib/kvm/exits.js'
import { exitReasons } from '../../lib/uapi.js'

/** Fields of `struct kvm_run` by offset; a bigint is 64 bits wide, a number 32, a one-element array 8. */
type Fields = Record<number, bigint | number | [number]>

const cases: [reason: keyof typeof exitReasons, fields: Fields, exit: Exit][] = [
  [
    'KVM_EXIT_MMIO',
    { 32: 0x9000000n, 40: 0xffffffff12345678n, 48: 4, 52: [1] },
    { reason: 'mmio', address: 0x9000000n, size: 4, write: true, data: 0x12345678n },
  ],
  [
    'KVM_EXIT_MMIO',
    { 32: 8n, 40: 5n, 48: 8, 52: [0] },
    { reason: 'mmio', address: 8n, size: 8, write: false, data: 0n },
  ],
  [
    'KVM_EXIT_SYSTEM_EVENT',
    { 32: 2, 36: 1, 40: 1n },
    { reason: 'system-event', event: 'reset', flags: 1n, data: [1n] },
  ],
  // Before 5.19 there is no count.
  ['KVM_EXIT_SYSTEM_EVENT', { 32: 1 }, { reason: 'system-event', event: 'shutdown', flags: 0n, data: [] }],
  ['KVM_EXIT_SYSTEM_EVENT', { 32: 77 }, { reason: 'system-event', event: 77, flags: 0n, data: [] }],
  [
    'KVM_EXIT_HYPERCALL',
    { 32: 0x84000000n, 96: 1n },
    { reason: 'hypercall', functionId: 0x84000000, conduit: 'smc' },
  ],
  [
    'KVM_EXIT_HYPERCALL',
    { 32: 0xc6000040n },
    { reason: 'hypercall', functionId: 0xc6000040, conduit: 'hvc' },
  ],
  [
    'KVM_EXIT_INTERNAL_ERROR',
    { 32: 4, 36: 2, 40: 1n, 48: 2n },
    { reason: 'internal-error', suberror: 4, data: [1n, 2n] },
  ],
  // A count no kernel gives is not believed.
  [
    'KVM_EXIT_INTERNAL_ERROR',
    { 32: 1, 36: 1 << 30 },
    { reason: 'internal-error', suberror: 1, data: Array(16).fill(0n) as bigint[] },
  ],
  ['KVM_EXIT_DIRTY_RING_FULL', {}, { reason: 'dirty-ring-full' }],
  [
    'KVM_EXIT_ARM_LDST64B',
    { 32: 0x9300_0840n, 40: 0x1000n },
    { reason: 'ldst64b', esrIss: 0x9300_0840n, address: 0x1000n },
  ],
  ['KVM_EXIT_ARM_NISV', { 32: 0x47n, 40: 0x1000n }, { reason: 'nisv', esrIss: 0x47n, address: 0x1000n }],
  [
    'KVM_EXIT_MEMORY_FAULT',
    { 32: 8n, 40: 0x4000n, 48: 0x1000n },
    { reason: 'memory-fault', flags: 8n, address: 0x4000n, size: 0x1000n },
  ],
  ['KVM_EXIT_FAIL_ENTRY', { 32: 1n, 40: 3 }, { reason: 'fail-entry', hardwareReason: 1n, cpu: 3 }],
  [
    'KVM_EXIT_DEBUG',
    { 32: 0xf2000000, 36: 1, 40: 0x80000n },
    { reason: 'debug', cause: 'brk', esr: 0x1f2000000n, address: 0n },
  ],
  [
    'KVM_EXIT_ARM_SEA',
    { 32: 1n, 40: 2n, 48: 3n, 56: 4n },
    { reason: 'sea', flags: 1n, esr: 2n, virtualAddress: 3n, physicalAddress: 4n },
  ],
  ['KVM_EXIT_INTR', {}, { reason: 'interrupted' }],
  ['KVM_EXIT_SHUTDOWN', {}, { reason: 'unknown', exitReason: 8 }],
]

for (const [reason, fields, exit] of cases) {
  it(`reads ${reason} ${JSON.stringify(exit, (_, value: unknown) => (typeof value === 'bigint' ? `0x${value.toString(16)}` : value))}`, () => {
    const run = new DataView(new ArrayBuffer(4096))
    run.setUint32(8, exitReasons[reason], true)
    for (const [offset, value] of Object.entries(fields)) {
      if (typeof value === 'bigint') run.setBigUint64(Number(offset), value, true)
      else if (typeof value === 'number') run.setUint32(Number(offset), value, true)
      else run.setUint8(Number(offset), value[0])
    }
    assert.deepEqual(decodeExit(run), exit)
  })
}
