/**
 * All of the addon's tests, to be run inside a machine with arm64 KVM. Those beside this file need it, and are named so that no
 * test run elsewhere picks them up; those above run on any KVM.
 */
import assert from 'node:assert/strict'
import { it } from 'node:test'
import { hasKvm } from '../handles.js'

it('The suite runs on a real arm64 KVM', () => {
  assert.equal(process.arch, 'arm64')
  assert.ok(hasKvm)
})

for (const file of [
  '../arguments.test.js',
  '../event.test.js',
  '../handles.test.js',
  '../hooks.test.js',
  '../lifetime.test.js',
  '../memory.test.js',
  '../run.test.js',
  './events.js',
  './guest.js',
  './registers.js',
  './requests.js',
  './rings.js',
]) {
  await import(file)
}
