/** What the arm64 addon asks of the machine it is loaded on, read from the file itself. */
import assert from 'node:assert/strict'
import { readFileSync, statSync } from 'node:fs'
import { beforeAll, describe, it } from 'vitest'
import { packageRoot } from '../../lib/package-root.js'

describe('The prebuilt addon', () => {
  const file = new URL('prebuilds/linux-arm64/kvm-arm64.node', packageRoot)
  let bytes: Buffer
  let strings: string[]
  beforeAll(() => {
    assert.ok(statSync(file, { throwIfNoEntry: false }), 'build it first: npm run build:addon -- --arm64')
    bytes = readFileSync(file)
    strings = bytes.toString('latin1').match(/[\x20-\x7e]{4,}/g) ?? []
  })

  it('is an arm64 shared object', () => {
    const elf64LittleEndian = Buffer.from([0x7f, 0x45, 0x4c, 0x46, 2, 1])
    assert.deepEqual(bytes.subarray(0, 6), elf64LittleEndian)
    const [sharedObject, aarch64] = [3, 183]
    assert.deepEqual([bytes.readUInt16LE(16), bytes.readUInt16LE(18)], [sharedObject, aarch64])
  })

  // What RHEL 8 has, the oldest distribution that Node.js 20 itself runs on.
  const floors = { GLIBC: '2.28', GLIBCXX: '3.4.25', CXXABI: '1.3.11' }
  for (const [library, floor] of Object.entries(floors)) {
    it(`needs nothing newer than ${library}_${floor}`, () => {
      const versions = strings.flatMap((text) => new RegExp(`^${library}_([\\d.]+)$`).exec(text)?.[1] ?? [])
      assert.ok(versions.length > 0)
      const newer = versions.filter((version) => version.localeCompare(floor, 'en', { numeric: true }) > 0)
      assert.deepEqual(newer, [])
    })
  }

  it('needs nothing that musl does not have', () => {
    const glibcOnly = /_chk$|^__stack_chk|^__getauxval$|^(open|mmap|ftruncate|stat|fstat)64$|^ld-linux/
    assert.deepEqual(
      strings.filter((text) => glibcOnly.test(text)),
      [],
    )
  })

  it('has its debugging symbols stripped', () => {
    assert.ok(!strings.includes('.symtab'))
    assert.ok(bytes.length < 400_000)
  })
})
