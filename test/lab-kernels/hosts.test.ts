import assert from 'node:assert/strict'
import { readdirSync } from 'node:fs'
import { it } from 'vitest'
import { labHosts } from './lab-hosts.js'

it('holds each recorded host against its kernel, in a file of its own', () => {
  const files = readdirSync(new URL('hosts/', import.meta.url))
  assert.deepEqual(files.toSorted(), labHosts.map(({ name }) => `${name}.test.ts`).toSorted())
})
