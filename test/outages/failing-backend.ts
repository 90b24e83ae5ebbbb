/** A backend that fails its n-th call, and counts what is left open: for tests of what becomes of a failure in any place. */
import type { Backend } from '../../lib/backend.js'
import { errnos, type ErrnoName } from '../../lib/uapi.js'

/** What may come of calls, by method, beside the errnos of `anyCall`. */
const byMethod: Readonly<Record<string, readonly ErrnoName[]>> = {
  open: ['EACCES', 'ENOENT', 'EMFILE', 'ENOMEM'],
  getApiVersion: ['EINVAL'],
  getVcpuMmapSize: ['EINVAL'],
  createVm: ['EINVAL', 'ENOMEM', 'EMFILE', 'EBUSY'],
  createVcpu: ['EINVAL', 'ENOMEM', 'EMFILE', 'EBUSY', 'EIO', 'EPERM'],
  createDevice: ['EINVAL', 'ENOMEM', 'EMFILE', 'EBUSY', 'EIO', 'EPERM'],
  createMemory: ['EINVAL', 'ENOMEM', 'EMFILE', 'EPERM'],
  read: ['EFAULT'],
  write: ['EFAULT'],
}
const anyCall: readonly ErrnoName[] = ['EINVAL', 'ENOENT', 'EBUSY', 'EIO', 'ENOMEM', 'EPERM', 'EFAULT']

/** Methods whose success is a handle. */
const makers: ReadonlySet<string> = new Set([
  'open',
  'createVm',
  'createVcpu',
  'createDevice',
  'createMemory',
])
/** Methods that fail for none of these reasons. */
const sure: ReadonlySet<string> = new Set(['close', 'kick', 'noteGuestCall'])

export function plausibleErrnos(method: string): readonly ErrnoName[] {
  return byMethod[method] ?? anyCall
}

export class FailingBackend implements Backend {
  readonly name: Backend['name']
  readonly host: Backend['host']
  readonly simulates?: string
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
          if (key === 'close') this.handles.delete(proxy)
          return this.#call(target, key, args)
        }
      },
      // The simulator wants memory of its own class.
      getPrototypeOf: () => Reflect.getPrototypeOf(target),
    })
    this.handles.set(proxy, maker)
    this.#targets.set(proxy, target)
    if (maker === 'createVm') this.#vms++
    return proxy
  }

  readonly #targets = new WeakMap<object, object>()

  #call(target: object, method: string, args: readonly unknown[]): unknown {
    const call = (...these: unknown[]): unknown =>
      (Reflect.get(target, method, target) as (...all: unknown[]) => unknown).apply(target, these)
    if (sure.has(method)) return call(...args)
    const isFault = this.#isFault(method)
    if (isFault && (method === 'getRegs' || method === 'setRegs')) return this.#failOne(call, method, args)
    if (isFault) return method === 'run' ? Promise.resolve(this.#errno) : this.#errno
    if (method === 'setUserMemoryRegion') {
      const region = args[0] as { memory: object | null }
      const memory = region.memory && (this.#targets.get(region.memory) ?? region.memory)
      return call({ ...region, memory })
    }
    const outcome = call(...args)
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
