/** A backend that fails its n-th call, and counts what is left open: for tests of what becomes of a failure in any place. */
import type { Backend, Cpus } from '../../lib/backend.js'
import { errnos, type ErrnoName } from '../../lib/uapi.js'

/** What may come of calls, by method, beside the errnos of `anyCall`. */
const byMethod: Readonly<Record<string, readonly ErrnoName[]>> = {
  open: ['EACCES', 'ENOENT', 'EMFILE', 'ENOMEM'],
  getApiVersion: ['EINVAL'],
  getVcpuMmapSize: ['EINVAL'],
  createVm: ['EINVAL', 'ENOMEM', 'EMFILE', 'ENFILE', 'EBUSY'],
  createVcpu: ['EINVAL', 'ENOMEM', 'EMFILE', 'EBUSY', 'EIO', 'EPERM'],
  createDevice: ['EINVAL', 'ENOMEM', 'EMFILE', 'EBUSY', 'EIO', 'EPERM'],
  createMemory: ['EINVAL', 'ENOMEM', 'EMFILE', 'EPERM'],
  pin: ['EINVAL', 'EPERM'],
  createEvent: ['EMFILE', 'ENFILE', 'ENOMEM'],
  read: ['EFAULT'],
  write: ['EFAULT'],
  signal: ['EAGAIN', 'EINVAL'],
  take: ['EAGAIN'],
  wait: ['EAGAIN', 'EBUSY'],
  setConstant: ['EEXIST', 'ENOSPC', 'EINVAL'],
  removeConstant: ['ENOENT'],
  addPosted: ['EEXIST', 'ENOSPC', 'EINVAL'],
  removePosted: ['ENOENT'],
}
const anyCall: readonly ErrnoName[] = ['EINVAL', 'ENOENT', 'EBUSY', 'EIO', 'ENOMEM', 'EPERM', 'EFAULT']

/** Methods whose success is a handle. */
const makers: ReadonlySet<string> = new Set([
  'open',
  'createVm',
  'createVcpu',
  'createDevice',
  'createMemory',
  'createEvent',
  'pin',
])
/** Methods that fail for none of these reasons. */
const sure: ReadonlySet<string> = new Set(['close', 'release', 'kick', 'noteGuestCall', 'takePosted'])
/** Methods that return a promise. */
const asynchronous: ReadonlySet<string> = new Set(['run', 'wait'])
/** Milliseconds after which a guest that waits is interrupted: on a simulated host, nothing happens while it waits. */
const LONGEST_WAIT = 1

export function plausibleErrnos(method: string): readonly ErrnoName[] {
  return byMethod[method] ?? anyCall
}

export class FailingBackend implements Backend {
  readonly name: Backend['name']
  readonly host: Backend['host']
  readonly simulates?: string
  readonly cpus?: Cpus
  readonly pageSize?: number
  /** Methods in the order they were called; the fault is at `methods[place]`. */
  readonly methods: string[] = []
  /** Handles not yet closed, by the method that made them. */
  readonly handles = new Map<object, string>()
  /** Runs whose promise has not settled. */
  unsettled = 0
  readonly #target: Backend
  readonly #place: number
  readonly #errno: number
  #vms = 0

  /** Fails call number `place`, from 0; -1 fails none. */
  constructor(target: Backend, place = -1, errno: ErrnoName = 'EINVAL') {
    this.#target = target
    this.#place = place
    this.#errno = -errnos[errno]
    this.name = target.name
    this.host = target.host
    if (target.simulates !== undefined) this.simulates = target.simulates
    if (target.pageSize !== undefined) this.pageSize = target.pageSize
    const { cpus } = target
    if (cpus === undefined) return
    this.cpus = {
      kinds: () => cpus.kinds(),
      pin: () => this.#call(cpus, 'pin', []) as ReturnType<Cpus['pin']>,
    }
  }

  /** Handles left open, by the methods that made them. */
  get left(): string[] {
    return [...this.handles.values()]
  }

  get vms(): number {
    return this.#vms
  }

  open(): ReturnType<Backend['open']> {
    return this.#call(this.#target, 'open', []) as ReturnType<Backend['open']>
  }

  #isFault(method: string): boolean {
    return this.methods.push(method) - 1 === this.#place
  }

  #wrap(target: object, maker: string): object {
    const proxy: object = new Proxy(target, {
      get: (_, key) => {
        const value: unknown = Reflect.get(target, key, target)
        if (typeof value !== 'function' || typeof key !== 'string') return value
        return (...args: unknown[]) => {
          if (key === 'close' || key === 'release') this.handles.delete(proxy)
          return this.#call(target, key, args)
        }
      },
      set: (_, key, value) => Reflect.set(target, key, value, target),
      // The simulator wants memory of its own class.
      getPrototypeOf: () => Reflect.getPrototypeOf(target),
    })
    this.handles.set(proxy, maker)
    this.#targets.set(proxy, target)
    if (maker === 'createVm') this.#vms++
    return proxy
  }

  readonly #targets = new WeakMap<object, object>()

  /** Memory and events are arguments of other calls. */
  #unwrap<T>(argument: T): T {
    if (typeof argument !== 'object' || argument === null) return argument
    return (this.#targets.get(argument) as T | undefined) ?? argument
  }

  #call(target: object, method: string, args: readonly unknown[]): unknown {
    const call = (...these: unknown[]): unknown =>
      (Reflect.get(target, method, target) as (...all: unknown[]) => unknown).apply(target, these)
    if (sure.has(method)) return call(...args)
    const isFault = this.#isFault(method)
    if (method === 'runSync' && typeof args[0] === 'number') args = [Math.min(args[0], LONGEST_WAIT)]
    if (isFault && (method === 'getRegs' || method === 'setRegs')) return this.#failOne(call, method, args)
    if (isFault) return asynchronous.has(method) ? Promise.resolve(this.#errno) : this.#errno
    if (method === 'setUserMemoryRegion') {
      const region = args[0] as { memory: object | null }
      return call({ ...region, memory: this.#unwrap(region.memory) })
    }
    const outcome = call(...args.map((argument) => this.#unwrap(argument)))
    if (outcome instanceof Promise) {
      this.unsettled++
      return outcome.finally(() => this.unsettled--)
    }
    return makers.has(method) && typeof outcome === 'object' && outcome !== null
      ? this.#wrap(outcome, method)
      : outcome
  }

  /** Of a batch, the ioctl in the middle fails. */
  #failOne(call: (...args: unknown[]) => unknown, method: string, args: readonly unknown[]): number {
    const [ids, values, outcomes] = args as [BigUint64Array, BigUint64Array, Int32Array]
    const at = ids.length >> 1
    const before = values[at]!
    const part = (from: number, to: number): number =>
      call(ids.subarray(from, to), values.subarray(from, to), outcomes.subarray(from, to)) as number
    if (ids.length === 0) return 0
    const failures = part(0, at) + part(at + 1, ids.length)
    values[at] = method === 'getRegs' ? 0n : before
    outcomes[at] = this.#errno
    return failures + 1
  }
}
