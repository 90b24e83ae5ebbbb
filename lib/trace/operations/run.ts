/** Calls that make a vCPU run, and calls that end handles. */
import * as v from 'valibot'
import { hex64, int32, uint32 } from '../../documents/entries.js'
import type { Conduit, GuestCallOutcome, StatsFd, VcpuFd } from '../../backend.js'
import { callFromGuest } from '../../kvm/guest-call.js'
import { readStatsLayout } from '../../kvm/stats.js'
import { withImmediateExit } from '../../kvm/immediate-exit.js'
import { hex } from '../../registers/index.js'
import { errnos, kvmRun, mpStates } from '../../uapi.js'
import type { NumberedKind } from '../handles.js'
import { closed, type Outcome, refused } from '../outcome.js'
import { oneOf, owner, owners } from './entries.js'
import { Operation, type Watched } from './operation.js'

/** Milliseconds that a run without `immediate_exit` gets before it is interrupted. */
const RUN_TIME = 1
/** Milliseconds that a guest's call gets at a time, and until it is given up. */
const CALL_SLICE = 2
const CALL_TIME = 10_000

/** x0 to x6; missing ones are 0. */
const callArguments = { vcpu: uint32, args: v.pipe(v.array(hex64), v.maxLength(7)) }
/** Any one of them. */
const handle = { ...owner, memory: v.optional(uint32), event: v.optional(uint32) }
const handleKinds = ['vm', 'vcpu', 'device', 'memory', 'event'] as const satisfies readonly NumberedKind[]

const statistic = v.strictObject({
  name: v.pipe(v.string(), v.maxLength(1000)),
  flags: uint32,
  exponent: v.pipe(int32, v.minValue(-0x8000), v.maxValue(0x7fff)),
  size: v.pipe(uint32, v.maxValue(0xffff)),
  offset: uint32,
  bucketSize: uint32,
})

export const runOperations = {
  /** `KVM_RUN`; `exit` is `kvm_run.exit_reason`. One without `immediate_exit` is interrupted after a millisecond. */
  run: new Operation({ vcpu: uint32, immediate_exit: v.boolean() }, { exit: v.optional(uint32) })
    .performed((handles, { vcpu, immediate_exit: isImmediate }) => {
      const fd = handles.get('vcpu', vcpu)
      if (fd === undefined) return closed
      const run = () => fd.runSync(RUN_TIME)
      return runOutcome(fd, isImmediate ? withImmediateExit(fd.runPage, run) : run())
    })
    .recorded('vcpu', 'runSync', (watched, [timeout], begin) => {
      const { fd } = watched
      const call = { immediate_exit: executesNothing(watched) }
      const errno = fd.runSync(timeout)
      endRun(watched, errno)
      begin(call)(errno === -errnos.EBADF ? null : runOutcome(fd, errno))
      return errno
    })
    .recorded('vcpu', 'run', async (watched, _, begin) => {
      const { fd } = watched
      const end = begin({ immediate_exit: executesNothing(watched) })
      let outcome: Outcome | null = null
      watched.isRunning = true
      try {
        const errno = await fd.run()
        endRun(watched, errno)
        if (errno !== -errnos.EBADF) outcome = runOutcome(fd, errno)
        return errno
      } finally {
        watched.isRunning = false
        end(outcome)
      }
    })
    // A trace holds no kick, only what it does to a run.
    .recorded('vcpu', 'kick', (watched) => {
      if (watched.isRunning) watched.kick ??= 'in-flight'
      watched.fd.kick()
    }),

  /** The guest calls its hypervisor or firmware: see `lib/kvm/guest-call.ts`. */
  hvc: guestCall('hvc'),
  smc: guestCall('smc'),

  /**
   * `KVM_GET_STATS_FD`: how the statistics are described. A trace does not hold what they count, which depends on time, nor the handle:
   * the caller gets it itself.
   */
  get_stats_fd: new Operation(
    { vm: v.optional(uint32), vcpu: v.optional(uint32) },
    { stats: v.optional(v.array(statistic)) },
  )
    .checked(oneOf(['vm', 'vcpu']))
    .performed((handles, { vm, vcpu }) => {
      const fd = vm === undefined ? handles.get('vcpu', vcpu!) : handles.get('vm', vm)
      const stats = fd?.getStatsFd() ?? -errnos.EBADF
      const outcome = statsOutcome(stats)
      if (typeof stats !== 'number') stats.close()
      return outcome
    })
    .recorded(['vm', 'vcpu'], 'getStatsFd', ({ fd }, _, begin) => {
      const stats = fd.getStatsFd()
      begin({})(stats === -errnos.EBADF ? null : statsOutcome(stats))
      return stats
    }),

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
      (watched, [{ args }, outcome], begin) => {
        if (outcome === -errnos.EBADF) return
        endRun(watched, typeof outcome === 'number' ? outcome : outcome.outcome)
        begin({ args: args.map(hex) })(guestCallOutcome(watched.fd, outcome))
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

function statsOutcome(stats: StatsFd | number): Outcome {
  const layout = typeof stats === 'number' ? stats : readStatsLayout(stats)
  return typeof layout === 'number' ? refused(layout) : { stats: layout.descriptors }
}

function runOutcome({ runPage }: VcpuFd, errno: number): Outcome {
  return errno < 0 ? refused(errno) : { exit: new DataView(runPage).getUint32(kvmRun.exit_reason, true) }
}

/** Returns whether a run that begins now executes no guest instruction, by `immediate_exit` or by a kick kept for it. */
function executesNothing({ fd, kick }: Watched<VcpuFd>): boolean {
  return isImmediateExit(fd) || kick === 'kept'
}

/** A kick that did not end its run is kept; userspace's own `immediate_exit` does not use it up. */
function endRun(watched: Watched<VcpuFd>, errno: number): void {
  if (watched.kick === undefined) return
  const isUsed = errno === -errnos.EINTR && !isImmediateExit(watched.fd)
  watched.kick = isUsed ? undefined : 'kept'
}

/** Returns what userspace wrote to the `kvm_run` page; false once the page is detached. */
function isImmediateExit({ runPage }: VcpuFd): boolean {
  return runPage.byteLength > 0 && new Uint8Array(runPage)[kvmRun.immediate_exit] !== 0
}
