/** `KVM_SET_GUEST_DEBUG`. */
import type { DebugCause, Exit, Kvm, Vcpu } from '../../kvm/index.js'
import { GUEST_DEBUG_WORDS, KVM_GUESTDBG_ENABLE } from '../../uapi.js'
import { type CheckGroup, notApplicable, violated } from '../check.js'
import {
  answerOfOutcome,
  describeExit,
  expect,
  expectRead,
  expectValue,
  onBareVcpu,
  SUCCESS,
  takesLateVcpus,
} from '../experiments.js'

const DOCUMENT = 'api.rst, KVM_SET_GUEST_DEBUG'
const CODE = 0x8000_0000n
const DATA = CODE + 0x8000n
const NOP = 0xd503_201f
const STORE = 0xb900_0022 // str w2, [x1]
const BRK = 0xd420_00e0 // brk #7
/** Where each instruction of the guest is. */
const at = { nop: CODE, store: CODE + 4n, brk: CODE + 8n } as const

/** A new VM with a guest that does nothing, stores 32 bits, and breaks. */
function onGuest(kvm: Kvm, experiment: (vcpu: Vcpu) => string, byHardware = true): string {
  if (byHardware && !takesLateVcpus(kvm)) notApplicable('with pKVM, Linux 6.18 debugs by brk alone')
  if (kvm.checkExtension('KVM_CAP_SET_GUEST_DEBUG') <= 0) notApplicable('no KVM_CAP_SET_GUEST_DEBUG')
  using vm = kvm.createVm()
  using memory = kvm.createMemory(0x1_0000)
  memory.write(0, new Uint8Array(Uint32Array.of(NOP, STORE, BRK).buffer))
  vm.mapMemory(0, { address: CODE, memory })
  const vcpu = vm.createVcpu(0)
  vcpu.registers.set('pc', CODE)
  vcpu.registers.set('x1', DATA)
  return experiment(vcpu)
}

/** Fails the check unless the run ends with this debug exception, before the instruction at `pc`. */
function expectDebug(vcpu: Vcpu, cause: DebugCause, pc: bigint): Extract<Exit, { reason: 'debug' }> {
  const exit = vcpu.runSync({ timeout: 10_000 })
  if (exit.reason !== 'debug') violated(`the run ends with ${describeExit(exit)}, not ${cause}`)
  if (exit.cause !== cause) violated(`the run ends with ${exit.cause}, not ${cause}`)
  expectRead(vcpu, 'pc', pc, `after ${cause}`)
  return exit
}

export const guestDebug: CheckGroup = {
  title: 'Guest debugging',
  checks: [
    {
      name: 'A single step ends after each instruction',
      promise: 'KVM_GUESTDBG_SINGLESTEP: the next run should single-step',
      source: DOCUMENT,
      mark: 'promised',
      experiment: (kvm) =>
        onGuest(kvm, (vcpu) => {
          vcpu.setDebug({ step: true })
          expectDebug(vcpu, 'step', at.store)
          expectDebug(vcpu, 'step', at.brk)
          return 'ends after each'
        }),
    },
    {
      name: 'A breakpoint ends a run before its instruction, until it is removed',
      promise: 'KVM_GUESTDBG_USE_HW: hardware breakpoints by the debug registers given',
      source: DOCUMENT,
      mark: 'promised',
      experiment: (kvm) =>
        onGuest(kvm, (vcpu) => {
          if (kvm.checkExtension('KVM_CAP_GUEST_DEBUG_HW_BPS') <= 0) notApplicable('no hardware breakpoints')
          vcpu.setDebug({ breakpoints: [at.store] })
          expectDebug(vcpu, 'breakpoint', at.store)
          expectDebug(vcpu, 'breakpoint', at.store)
          vcpu.setDebug({ softwareBreakpoints: true })
          expectDebug(vcpu, 'brk', at.brk)
          return 'ends before it'
        }),
    },
    {
      name: 'A watchpoint ends a run before an access of its bytes, with their address',
      promise: 'the debug exit has the address that triggered a watchpoint',
      source: DOCUMENT,
      mark: 'promised',
      experiment: (kvm) =>
        onGuest(kvm, (vcpu) => {
          if (kvm.checkExtension('KVM_CAP_GUEST_DEBUG_HW_WPS') <= 0) notApplicable('no hardware watchpoints')
          const others = [
            { address: DATA, size: 4, access: 'read' },
            { address: DATA + 4n, size: 4 },
          ] as const
          vcpu.setDebug({ softwareBreakpoints: true, watchpoints: others })
          expectDebug(vcpu, 'brk', at.brk)
          vcpu.setDebug({ watchpoints: [{ address: DATA, size: 4, access: 'write' }] })
          vcpu.registers.set('pc', at.store)
          const { address } = expectDebug(vcpu, 'watchpoint', at.store)
          expectValue('the address', address, DATA)
          return 'ends before it'
        }),
    },
    {
      name: 'A brk of a debugged guest is an exit with its comment',
      promise: 'KVM_GUESTDBG_USE_SW_BP: using software breakpoints; the exit holds the syndrome (hsr)',
      source: DOCUMENT,
      mark: 'promised',
      experiment: (kvm) =>
        onGuest(
          kvm,
          (vcpu) => {
            vcpu.setDebug({ softwareBreakpoints: true })
            const { esr } = expectDebug(vcpu, 'brk', at.brk)
            expectValue('the comment', esr & 0xffffn, 7n)
            return 'is an exit'
          },
          false,
        ),
    },
    {
      name: 'Controls that arm64 does not have are EINVAL',
      promise: 'the top 16 bits of the control are architecture specific',
      source: 'every release',
      mark: 'observed',
      experiment: (kvm) =>
        onBareVcpu(kvm, ['psci-0.2'], (vcpu) => {
          const registers = new BigUint64Array(GUEST_DEBUG_WORDS)
          for (let bit = 0; bit < 32; bit++) {
            const control = ((1 << bit) | KVM_GUESTDBG_ENABLE) >>> 0
            const expected = [0, 1, 16, 17].includes(bit) ? SUCCESS : 'EINVAL'
            expect(`bit ${bit}`, answerOfOutcome(vcpu.setGuestDebug(control, registers)), expected)
          }
          return 'EINVAL'
        }),
    },
  ],
}
