/**
 * Stands in for `node:test` where the addon's tests run outside the lab's machine. Inside it, and under the sanitizers, they run on
 * Node alone: the machine has Node and the package and nothing else, and a leak is only reported by a process that ends by itself.
 */
export { afterAll as after, afterEach, beforeAll as before, beforeEach, describe, it } from 'vitest'
