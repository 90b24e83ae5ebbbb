/** Calls that make a vCPU run, and calls that end handles. */
import * as v from 'valibot'
import { hex64, uint32 } from '../../documents/entries.js'
import type { Conduit, GuestCallOutcome, VcpuFd } from '../../backend.js'
import { callFromGuest } from '../../kvm/guest-call.js'
import { hex } from '../../registers/index.js'
import { errnos, kvmRun, mpStates } from '../../uapi.js'
import type { NumberedKind } from '../handles.js'
import { closed, type Outcome, refused } from '../outcome.js'
import { oneOf, owner, owners } from './entries.js'
import { Operation } from './operation.js'

/** Milliseconds that a run without `immediate_exit` gets before it is interrupted. */
const RUN_TIME = 1
/** Milliseconds that a guest's call gets at a time, and until it is given up. */
const CALL_SLICE = 2
const CALL_TIME = 10_000

/** x0 to x6; missing ones are 0. */
const callArguments = { vcpu: uint32, args: v.pipe(v.array(hex64), v.maxLength(7)) }
/** Any one of them. */
const handle = { ...owner, memory: v.optional(uint32) }
const handleKinds = ['vm', 'vcpu', 'device', 'memory'] as const satisfies readonly NumberedKind[]

export const runOperations = {
  /** `KVM_RUN`; `exit` is `kvm_run.exit_reason`. One without `immediate_exit` is interrupted after a millisecond. */
  run: new Operation({ vcpu: uint32, immediate_exit: v.boolean() }, { exit: v.optional(uint32) })
    .performed((handles, { vcpu, immediate_exit: isImmediate }) => {
      const fd = handles.get('vcpu', vcpu)
      if (fd === undefined) return closed
      const view = new DataView(fd.runPage)
      view.setUint8(kvmRun.immediate_exit, isImmediate ? 1 : 0)
      const errno = fd.runSync(RUN_TIME)
      view.setUint8(kvmRun.immediate_exit, 0)
      return runOutcome(fd, errno)
    })
    .recorded('vcpu', 'runSync', ({ fd }, [timeout], begin) => {
      const call = { immediate_exit: isImmediateExit(fd) }
      const errno = fd.runSync(timeout)
      begin(call)(errno === -errnos.EBADF ? null : runOutcome(fd, errno))
      return errno
    })
    .recorded('vcpu', 'run', async ({ fd }, _, begin) => {
      const end = begin({ immediate_exit: isImmediateExit(fd) })
      let outcome: Outcome | null = null
      try {
        const errno = await fd.run()
        if (errno !== -errnos.EBADF) outcome = runOutcome(fd, errno)
        return errno
      } finally {
        end(outcome)
      }
    }),

  /** The guest calls its hypervisor or firmware: see `lib/kvm/guest-call.ts`. */
  hvc: guestCall('hvc'),
  smc: guestCall('smc'),

  close: new Operation(handle, null)
    .checked(oneOf(handleKinds))
    .performed((handles, call) => {
      for (const kind of handleKinds) if (call[kind] !== undefined) handles.close(kind, call[kind])
      return {}
    })
    .recorded(owners, 'close', (watched, _, begin) => {
      watched.fd.close()
      if (!watched.isClosed) begin({})({})
      watched.isClosed = true
    }),

  /** Closes everything; numbers start again from 0. */
  reset: new Operation({}, null).performed((handles) => {
    handles.reset()
    return {}
  }),
}

/** x0 to x3 once the call has returned to the guest, or the exit it ended with. */
function guestCall(conduit: Conduit) {
  return new Operation(callArguments, {
    x: v.optional(v.pipe(v.array(hex64), v.length(4))),
    exit: v.optional(uint32),
  })
    .performed((handles, { vcpu, args }) => {
      const fd = handles.get('vcpu', vcpu)
      if (fd === undefined) return closed
      const errno = handles.mapStub(vcpu)
      if (errno < 0) return refused(errno)
      return guestCallOutcome(fd, callFromGuest(fd, { conduit, args: args.map(BigInt) }, runGuestCall))
    })
    .recorded(
      'vcpu',
      'noteGuestCall',
      ({ fd }, [{ args }, outcome], begin) => {
        if (outcome === -errnos.EBADF) return
        begin({ args: args.map(hex) })(guestCallOutcome(fd, outcome))
      },
      ([call]) => call.conduit === conduit,
    )
}

/**
 * Runs a guest until its call returns, or cannot return. A guest that waits for an interrupt continues when it runs again, so a
 * call has the same outcome on a machine of any speed.
 */
function runGuestCall(vcpu: VcpuFd): number {
  const end = performance.now() + CALL_TIME
  for (;;) {
    const errno = vcpu.runSync(CALL_SLICE)
    if (errno !== -errnos.EINTR || performance.now() > end) return errno
    // A vCPU that PSCI stopped executes nothing.
    if (vcpu.getMpState() !== mpStates.runnable) return errno
  }
}

function guestCallOutcome(vcpu: VcpuFd, found: GuestCallOutcome): Outcome {
  if (typeof found === 'number') return refused(found)
  return found.returned ? { x: found.x.map(hex) } : runOutcome(vcpu, found.outcome)
}

function runOutcome({ runPage }: VcpuFd, errno: number): Outcome {
  return errno < 0 ? refused(errno) : { exit: new DataView(runPage).getUint32(kvmRun.exit_reason, true) }
}

/** Returns the data that userspace wrote to the `kvm_run` page; false once the page is detached. */
function isImmediateExit({ runPage }: VcpuFd): boolean {
  return runPage.byteLength > 0 && new Uint8Array(runPage)[kvmRun.immediate_exit] !== 0
}
