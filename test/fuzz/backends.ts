import assert from 'node:assert/strict'
import type { Backend, SystemFd } from '../../lib/backend.js'

/** `/dev/kvm` of a backend. */
export function open(backend: Backend): SystemFd {
  const kvm = backend.open()
  assert.ok(typeof kvm !== 'number')
  return kvm
}

/** A handle that answers some calls otherwise. */
export function altered<T extends object>(handle: T, change: Partial<T>): T {
  return new Proxy(handle, {
    get(target, key) {
      if (Object.hasOwn(change, key)) return change[key as keyof T]
      const value: unknown = Reflect.get(target, key, target)
      return typeof value === 'function' ? value.bind(target) : value
    },
  })
}
