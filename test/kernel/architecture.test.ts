import assert from 'node:assert/strict'
import { test } from 'vitest'
import { wrongArchitecture } from '../../lib/kernel/index.js'

test('only arm64 is the right architecture', () => {
  assert.equal(wrongArchitecture('arm64'), undefined)
  assert.equal(wrongArchitecture('x64')?.problem, 'this machine is x64, not arm64')
  assert.equal(wrongArchitecture()?.problem, wrongArchitecture(process.arch)?.problem)
})
