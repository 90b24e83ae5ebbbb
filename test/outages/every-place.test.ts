/** No failure in any place of an operation leaks a handle, hides, or comes out as anything but a documented error. */
import assert from 'node:assert/strict'
import { describe, test } from 'vitest'
import { failEveryPlace } from './every-place.js'
import { checks, type Operation, operations, targetOf, tellsOfFault } from './operations.js'

async function problemsOf(operation: Operation): Promise<unknown[]> {
  const { tried, problems } = await failEveryPlace(
    () => targetOf(operation),
    operation,
    { samples: operation.samples, all: false },
    operation.tells ?? tellsOfFault,
  )
  assert.ok(tried >= Math.min(2, operation.samples))
  return problems
}

describe('a fault in any place', () => {
  for (const [name, operation] of Object.entries(operations)) {
    test(`of ${name}`, async () => assert.deepEqual(await problemsOf(operation), []))
  }

  test('of each conformance check', async () => {
    for (const [name, check] of Object.entries(checks)) assert.deepEqual(await problemsOf(check), [], name)
  })
})
