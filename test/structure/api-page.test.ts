/** docs/api.md names every public member of the handles, and no other. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { describe, test } from 'vitest'
import { packageRoot } from '../../lib/package-root.js'

const page = readFileSync(new URL('docs/api.md', packageRoot), 'utf8')

const files = {
  Kvm: 'kvm',
  Vm: 'vm',
  Vcpu: 'vcpu',
  Registers: 'registers',
  Services: 'services',
  Timers: 'vcpu-parts',
  Pmu: 'vcpu-parts',
  StolenTime: 'vcpu-parts',
  Mmio: 'mmio',
  Gic: 'gic',
  GuestAddressSpace: 'address-space',
  GuestMemory: 'memory',
  Stats: 'stats',
  Device: 'device',
  Attributes: 'attributes',
} as const

/** Used by other handles only, although TypeScript cannot hide them from programs. */
const internal = new Set(['constructor', 'fd', 'backend'])

/** Names at the class's own level of indentation that are neither private nor symbols. */
function membersOf(name: string, file: string): string[] {
  const source = readFileSync(new URL(`lib/kvm/${file}.ts`, packageRoot), 'utf8')
  const body = source.split(new RegExp(`^export class ${name}\\b.*\\{$`, 'm'))[1]!.split(/^\}$/m)[0]!
  const members = body.matchAll(/^ {2}(?:(?:readonly|async|get|set) )*([a-z]\w*)(?=[(<:?!]| =)/gm)
  return [...new Set([...members].map(([, member]) => member!))].filter((member) => !internal.has(member))
}

describe('docs/api.md', () => {
  for (const [name, file] of Object.entries(files)) {
    test(`has every member of ${name}`, () => {
      const section = page.split(`### ${name}\n`)[1]!.split(/^##/m)[0]!
      const cells = [...section.matchAll(/^\| `(.+?)` +\|/gm)].map(([, cell]) => cell!)
      const named = cells.flatMap((cell) => cell.replaceAll(/\([^)]*\)/g, '').split(', '))
      assert.deepEqual(named.toSorted(), membersOf(name, file).toSorted())
    })
  }
})
