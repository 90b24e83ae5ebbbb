/** The order of the rooms of lib/ (test/structure/rooms.ts) holds for every import, types included. */
import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { describe, test } from 'vitest'
import { packageRoot } from '../../lib/package-root.js'
import { entryPoints, planned, rooms, violations } from './rooms.js'

const lib = new URL('lib/', packageRoot)

function sources(): Map<string, string> {
  const paths = readdirSync(lib, { recursive: true, encoding: 'utf8' }).filter((path) => path.endsWith('.ts'))
  return new Map(paths.map((path) => [path, readFileSync(new URL(path, lib), 'utf8')]))
}

function isExpected(room: string): boolean {
  return !planned.includes(room)
}

/** What breaks the order once this source is there. */
function planted(path: string, source: string): string[] {
  const others = ['kvm/vm.ts', 'registers/index.ts', 'doors/fleet.ts', 'index.ts']
  return violations(new Map([...others.map((each) => [each, ''] as const), [path, source]]))
}

describe('the rooms', () => {
  test('import only what is below them', () => {
    const found = sources()
    assert.ok(found.size > 200)
    assert.deepEqual(violations(found), [])
  })

  test('are all there, and none is forgotten in the list', () => {
    assert.deepEqual(
      readdirSync(lib).filter(isExpected).toSorted(),
      [...rooms, ...entryPoints].filter(isExpected).toSorted(),
    )
  })

  test('may import what is below', () => {
    assert.deepEqual(planted('kvm/x.ts', `import { id } from '../registers/index.js'`), [])
    assert.deepEqual(planted('doors/x.ts', `export { id } from '../registers/index.js'`), [])
  })

  for (const source of [
    `import { Vm } from '../kvm/vm.js'`,
    `import type { Vm } from '../kvm/vm.js'`,
    `import {\n  type Vm,\n} from '../kvm/vm.js'`,
    `export { Vm } from "../kvm/vm.js"`,
    `const { Vm } = await import('../kvm/vm.js')`,
    `export type Vm = import('../kvm/vm.js').Vm`,
  ]) {
    test(`may not import what is above: ${JSON.stringify(source)}`, () => {
      assert.deepEqual(planted('registers/x.ts', source), [
        'registers/x.ts imports kvm/vm.ts, which is above it',
      ])
    })
  }

  test('may not import an entry point, nor what is no file of lib/', () => {
    assert.deepEqual(planted('cli/x.ts', `import '../index.js'`), [
      'cli/x.ts imports the entry point index.ts',
    ])
    assert.deepEqual(planted('cli/x.ts', `import '../doors/fleet.js'`), [
      'cli/x.ts imports the entry point doors/fleet.ts',
    ])
    assert.deepEqual(planted('cli/x.ts', `import '../../test/x.js'`), [
      'cli/x.ts imports test/x.ts, which is not in lib/',
    ])
  })

  test('must be in the list', () => {
    assert.deepEqual(planted('attic/x.ts', ''), ['attic/x.ts: attic is not in the list of rooms'])
  })
})
