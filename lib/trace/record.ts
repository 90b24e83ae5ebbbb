import type { Backend, EventFd, GuestMemoryFd, VcpuFd } from '../backend.js'
import type { TraceEntry } from './format.js'
import type { Kind, Kinds, NumberedKind } from './handles.js'
import { type Call, type Op, operations } from './operations/index.js'
import type { MethodOf, Numbers, Watched } from './operations/operation.js'
import { done, type Outcome } from './outcome.js'

type Sink = (entry: TraceEntry) => void

/**
 * Wraps `backend` and passes every ioctl with its outcome to `sink`. Reads and writes of several registers at once are recorded as
 * that many calls. Calls on closed handles are left out: they reach no kernel.
 *
 * A `run()` is recorded where it began. Calls made while it is in flight are passed on once it has ended.
 */
export function recordingBackend(backend: Backend, sink: Sink): Backend {
  // One for all that are opened: they write to one trace, in which each number means one handle.
  const recorder = new Recorder(sink)
  return {
    ...backend,
    open: () => {
      const kvm = backend.open()
      return typeof kvm === 'number' ? kvm : watch('system', kvm, {}, recorder)
    },
  }
}

/** Numbers handles and keeps the order in which calls began. */
class Recorder implements Numbers {
  readonly #sink: Sink
  readonly #passedOn = new WeakMap<GuestMemoryFd | EventFd, number>()
  readonly #counts = { vm: 0, vcpu: 0, device: 0, memory: 0, event: 0 }
  /** Calls from the first on that has not ended; a call with `outcome` null is left out. */
  readonly #begun: { call: Call; outcome: Outcome | null | undefined }[] = []

  constructor(sink: Sink) {
    this.#sink = sink
  }

  next(kind: NumberedKind): number {
    return this.#counts[kind]++
  }

  watch<K extends NumberedKind>(kind: K, made: Kinds[K], number: number): Kinds[K] {
    if (kind !== 'memory' && kind !== 'event') {
      return watch<Kind>(kind, made, { [kind]: number }, this) as Kinds[K]
    }
    // A trace holds neither the content of memory nor what an event counted, so the caller gets the handle itself.
    this.#passedOn.set(made as GuestMemoryFd | EventFd, number)
    return made
  }

  numberOf(made: GuestMemoryFd | EventFd): number {
    const known = this.#passedOn.get(made)
    if (known !== undefined) return known
    // Nobody recorded how it was made: the trace begins with it here, so that it can be replayed.
    const kind = 'size' in made ? 'memory' : 'event'
    const number = this.next(kind)
    this.#passedOn.set(made, number)
    this.begin(
      'size' in made
        ? { op: 'create_memory', memory: number, size: made.size }
        : { op: 'create_event', event: number },
    )(done)
    return number
  }

  begin(call: Call): (outcome: Outcome | null) => void {
    const begun: { call: Call; outcome: Outcome | null | undefined } = { call, outcome: undefined }
    this.#begun.push(begun)
    return (outcome) => {
      begun.outcome = outcome
      this.#flush()
    }
  }

  #flush(): void {
    for (let [first] = this.#begun; first?.outcome !== undefined; [first] = this.#begun) {
      this.#begun.shift()
      if (first.outcome !== null) this.#sink({ call: first.call, outcome: first.outcome })
    }
  }
}

type RecordedKind = Exclude<Kind, 'memory' | 'event'>
/** Named as in the rows, `vcpu.getRegs`. */
type Method = { [K in RecordedKind]: `${K}.${MethodOf<K>}` }[RecordedKind]
type RecordedMethod = (typeof operations)[Op]['recordings'][number]['on']

/**
 * The methods that are not ioctls. A method added to the backend fails to compile here until a row of the table records it.
 */
const passedOn: Readonly<Record<Exclude<Method, RecordedMethod>, true>> = {
  'system.close': true,
  'vcpu.onPosted': true,
  'vcpu.takeCoalesced': true,
  'vcpu.takeDirty': true,
  'vm.setConstant': true,
  'vm.removeConstant': true,
  'vm.addPosted': true,
  'vm.removePosted': true,
  'vm.takePosted': true,
}

type Row = { op: Op } & (typeof operations)[Op]['recordings'][number]

/** The rows that record each method, by handle and method. */
const rowsOf = new Map<string, Row[]>()
for (const [op, { recordings }] of Object.entries(operations)) {
  for (const recording of recordings) {
    const rows = rowsOf.get(recording.on) ?? []
    rowsOf.set(recording.on, [...rows, { op: op as Op, ...recording }])
  }
}

/** Returns the handle that the caller gets instead of `fd`; `owner` names it in a call. */
function watch<K extends Kind>(kind: K, fd: Kinds[K], owner: object, recorder: Recorder): Kinds[K] {
  const watched: Watched<Kinds[K]> = { fd, numbers: recorder, isClosed: false }
  const handle: Record<PropertyKey, unknown> = { observed: fd }
  for (const [on, rows] of rowsOf) {
    const [onKind, method] = on.split('.') as [RecordedKind, string]
    if (onKind !== kind) continue
    handle[method] = (...args: unknown[]) => {
      const { op, record } = rows.find(({ takes }) => takes(args))!
      return record(watched, args, (call) => recorder.begin({ op, ...owner, ...call } as Call))
    }
  }
  for (const on of Object.keys(passedOn)) {
    const [onKind, method] = on.split('.') as [RecordedKind, keyof Kinds[K]]
    if (onKind === kind && on !== 'vcpu.onPosted') handle[method] = (fd[method] as () => unknown).bind(fd)
  }
  if (kind === 'vcpu') {
    const vcpu = fd as VcpuFd
    Object.defineProperty(handle, 'runPage', { get: () => vcpu.runPage })
    Object.defineProperty(handle, 'onPosted', {
      get: () => vcpu.onPosted,
      set: (listener: VcpuFd['onPosted']) => {
        vcpu.onPosted = listener
      },
    })
  }
  return handle as unknown as Kinds[K]
}
