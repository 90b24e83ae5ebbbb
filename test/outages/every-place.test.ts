/** No failure in any place of an operation leaks a handle, hides, or comes out as anything but a documented error. */
import assert from 'node:assert/strict'
import { describe, test } from 'vitest'
import { simulator } from '../../lib/hosts/index.js'
import { failEveryPlace } from './every-place.js'
import { HOST, operations, tellsOfFault } from './operations.js'

describe('a fault in any place', () => {
  for (const [name, operation] of Object.entries(operations).filter(([, { samples }]) => samples > 0)) {
    test(`of ${name}`, async () => {
      const { tried, problems } = await failEveryPlace(
        () => simulator(HOST),
        operation,
        { samples: operation.samples, all: false },
        tellsOfFault,
      )
      assert.ok(tried > 1)
      assert.deepEqual(problems, [])
    })
  }
})
