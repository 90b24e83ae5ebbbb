/** The parts of a row in the table of operations: its schema, how a call is performed, and how one is recorded. */
import type * as v from 'valibot'
import type { EventFd, GuestMemoryFd } from '../../backend.js'
import { errnos } from '../../uapi.js'
import type { Handles, Kind, Kinds, NumberedKind } from '../handles.js'
import { closed, done, type Outcome, plain, refused } from '../outcome.js'

/** The arguments of a call, as a trace writes them. */
export type Arguments<Entries extends v.ObjectEntries> = v.InferOutput<
  v.StrictObjectSchema<Entries, undefined>
>

/** The methods of a kind of handle. */
export type MethodOf<K extends Kind> = string &
  {
    [M in keyof Kinds[K]]-?: Kinds[K][M] extends ((...args: never[]) => unknown) | undefined ? M : never
  }[keyof Kinds[K]]

/** The empty tuple makes the compiler infer a tuple for a list of arguments. */
type ArgumentsOf<K extends Kind, M extends MethodOf<K>> = K extends Kind
  ? NonNullable<Kinds[K][M & keyof Kinds[K]]> extends (...args: infer A extends unknown[] | []) => unknown
    ? A
    : never
  : never
type AnswerOf<K extends Kind, M extends MethodOf<K>> = K extends Kind
  ? NonNullable<Kinds[K][M & keyof Kinds[K]]> extends (...args: never[]) => infer R
    ? R
    : never
  : never

/** What a recording remembers of earlier calls. */
export interface Numbers {
  /** The next number for a handle of that kind. */
  next(kind: NumberedKind): number
  /** Gives a handle its number; returns the handle that the caller gets instead. */
  watch<K extends NumberedKind>(kind: K, made: Kinds[K], number: number): Kinds[K]
  /** Returns the number of a memory or an event; one that the recording has not seen before gets its creation recorded. */
  numberOf(made: GuestMemoryFd | EventFd): number
}

/** A handle whose calls are recorded. */
export interface Watched<Fd> {
  readonly fd: Fd
  readonly numbers: Numbers
  isClosed: boolean
  /** Whether a `run()` of the vCPU is in flight. */
  isRunning?: boolean
  /** A kick, until a run ends by it: of the run in flight, or kept for the next because that one had left the guest. */
  kick?: 'in-flight' | 'kept' | undefined
}

/**
 * Reserves a call's place in the recording; the call comes without the number of the handle it is made on. The returned function
 * adds the outcome, or leaves the call out if it receives null.
 */
export type Begin<Call> = (call: Call) => (outcome: Outcome | null) => void

/** Converts between a method's arguments and a call. */
interface Way<Args, Answer, Call, Owner extends string, Made extends NumberedKind> {
  /** The kind of handle that the method makes; the call holds its number. */
  readonly creates?: Made
  /** Whether this operation records a call of the method, if it does not record all. The first row that matches records it. */
  readonly takes?: (args: Args) => boolean
  /** Makes the call, without the numbers of the handle it is made on and of the one it makes. Called before the method. */
  readonly toCall: (args: Args, numbers: Numbers) => Omit<Call, Owner | Made>
  /** Returns `-errno` if the arguments cannot be made; null if another method performs the call. */
  readonly toArguments: (call: Call, handles: Handles) => Args | number | null
  /** `args` as the method left them. Default: `ret`, or the errno. */
  readonly toOutcome?: (answer: Answer, args: Args, call: Omit<Call, Owner>) => Outcome
}

interface Recording<On extends string> {
  /** `vcpu.getRegs` */
  readonly on: On
  readonly takes: (args: readonly unknown[]) => boolean
  /** Calls the method and records the call from beginning to end; returns what the method returned. */
  readonly record: (watched: Watched<unknown>, args: readonly unknown[], begin: Begin<object>) => unknown
}

type Perform = (handles: Handles, call: object) => Outcome | null

/** A row of the table of operations. */
export class Operation<Entries extends v.ObjectEntries, Recorded extends string = never> {
  readonly args: Entries
  /** The possible results besides an errno; null for a call that has no outcome. */
  readonly results: v.ObjectEntries | null
  readonly recordings: Recording<Recorded>[] = []
  readonly #performances: Perform[] = []
  #check: ((call: Arguments<Entries>, outcome: Outcome, source: string) => void) | undefined

  constructor(args: Entries, results: v.ObjectEntries | null) {
    this.args = args
    this.results = results
  }

  /** A row performed and recorded as a method of a handle; of several `kinds`, the call names one. */
  by<K extends Kind, M extends MethodOf<K>, Made extends NumberedKind = never>(
    kinds: K | readonly K[],
    method: M,
    way: Way<ArgumentsOf<K, M>, AnswerOf<K, M>, Arguments<Entries>, K, Made>,
  ): Operation<Entries, Recorded | `${K}.${M}`> {
    type Call = Arguments<Entries>
    const { creates, takes, toCall, toArguments, toOutcome = plainOutcome } = way
    const on = [kinds].flat() as K[]
    const ask = (fd: Kinds[K], args: ArgumentsOf<K, M>): AnswerOf<K, M> =>
      (fd as Record<M, (...args: ArgumentsOf<K, M>) => AnswerOf<K, M>>)[method](...args)
    this.#performances.push((handles, call) => {
      const fd = find(handles, on, call)
      if (fd === undefined) return closed
      const args = toArguments(call as Call, handles)
      if (args === null) return null
      if (typeof args === 'number') return refused(args)
      const answer = ask(fd, args)
      if (creates !== undefined && typeof answer !== 'number') {
        const { [creates]: number, vm } = call as Record<NumberedKind, number>
        handles.keep(creates, number, answer as Kinds[Made], vm)
      }
      return toOutcome(answer, args, call as Call)
    })
    return this.recorded(
      kinds,
      method,
      ({ fd, numbers }, args, begin) => {
        const number = creates === undefined ? undefined : numbers.next(creates)
        const call = { ...(creates && { [creates]: number }), ...toCall(args, numbers) } as unknown as Omit<
          Call,
          K
        >
        const answer = ask(fd, args)
        const outcome = answer === -errnos.EBADF ? null : toOutcome(answer, args, call)
        begin(call)(outcome)
        return number === undefined || typeof answer === 'number'
          ? answer
          : (numbers.watch(creates!, answer as Kinds[Made], number) as typeof answer)
      },
      takes,
    )
  }

  /** A row performed in a way of its own. */
  performed(perform: (handles: Handles, call: Arguments<Entries>) => Outcome): this {
    this.#performances.push((handles, call) => perform(handles, call as Arguments<Entries>))
    return this
  }

  /** A row recorded in a way of its own. */
  recorded<K extends Kind, M extends MethodOf<K>>(
    kinds: K | readonly K[],
    method: M,
    record: (
      watched: Watched<Kinds[K]>,
      args: ArgumentsOf<K, M>,
      begin: Begin<Omit<Arguments<Entries>, K>>,
    ) => AnswerOf<K, M>,
    takes: (args: ArgumentsOf<K, M>) => boolean = () => true,
  ): Operation<Entries, Recorded | `${K}.${M}`> {
    const row = this as unknown as Operation<Entries, Recorded | `${K}.${M}`>
    for (const kind of [kinds].flat() as K[]) {
      const recording = { on: `${kind}.${method}`, takes, record }
      row.recordings.push(recording as unknown as Recording<`${K}.${M}`>)
    }
    return row
  }

  /** Refuses what the schema cannot refuse, with a FormatError. */
  checked(check: (call: Arguments<Entries>, outcome: Outcome, source: string) => void): this {
    this.#check = check
    return this
  }

  perform(handles: Handles, call: object): Outcome {
    for (const perform of this.#performances) {
      const outcome = perform(handles, call)
      if (outcome !== null) return outcome
    }
    throw new TypeError(`${JSON.stringify(call)} cannot be performed`)
  }

  /** @throws FormatError for a call that cannot be made, or an outcome that it cannot have, although they fit the schema */
  check(call: object, outcome: Outcome, source: string): void {
    this.#check?.(call as Arguments<Entries>, outcome, source)
  }
}

/** Returns the handle on which a call is made. */
function find<K extends Kind>(handles: Handles, kinds: readonly K[], call: object): Kinds[K] | undefined {
  for (const kind of kinds) {
    if (kind === 'system') return handles.system as Kinds[K]
    const number = (call as Partial<Record<Kind, number>>)[kind]
    if (number !== undefined) return handles.get(kind, number) as Kinds[K] | undefined
  }
  return undefined
}

function plainOutcome(answer: unknown): Outcome {
  return typeof answer === 'number' ? plain(answer) : done
}
