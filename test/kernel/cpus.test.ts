import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { test } from 'vitest'
import { pinToLowest, readCpuKinds } from '../../lib/kernel/cpus.js'

/** Makes a folder like `/sys/devices/system/cpu`. */
function sysfs(files: Readonly<Record<string, string>>): string {
  const folder = mkdtempSync(join(tmpdir(), 'cpus-'))
  for (const [file, content] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, file)), { recursive: true })
    writeFileSync(join(folder, file), `${content}\n`)
  }
  return folder
}

function cpu(number: number, midr: string, size: string): Record<string, string> {
  return {
    [`cpu${number}/regs/identification/midr_el1`]: midr,
    [`cpu${number}/regs/identification/revidr_el1`]: '0x0000000000000000',
    [`cpu${number}/cache/index0/level`]: '1',
    [`cpu${number}/cache/index0/type`]: 'Data',
    [`cpu${number}/cache/index0/size`]: size,
    [`cpu${number}/cache/index0/coherency_line_size`]: '64',
    [`cpu${number}/cache/index0/ways_of_associativity`]: '4',
    [`cpu${number}/cache/index0/number_of_sets`]: '256',
    [`cpu${number}/cache/index1/level`]: '2',
    [`cpu${number}/cache/index1/type`]: 'Unified',
  }
}

const little = '0x00000000412fd050'
const big = '0x00000000414fd0b0'

const caches = (size: number) => [
  { level: 1, type: 'data', size, line: 64, ways: 4, sets: 256 },
  { level: 2, type: 'unified' },
]

test('CPUs are told apart by MIDR_EL1 and caches, and listed as Linux lists them', () => {
  const folder = sysfs({
    ...cpu(0, little, '32K'),
    ...cpu(1, little, '32K'),
    ...cpu(2, little, '64K'),
    ...cpu(10, big, '64K'),
    ...cpu(3, little, '32K'),
    // Offline: without registers.
    'cpu4/online': '0',
    'cpufreq/policy0': '',
    possible: '0-10',
  })
  assert.deepEqual(readCpuKinds(folder), [
    { cpus: '0-1,3', midr: '0x412fd050', revidr: '0x0', caches: caches(32 * 1024) },
    { cpus: '2', midr: '0x412fd050', revidr: '0x0', caches: caches(64 * 1024) },
    { cpus: '10', midr: '0x414fd0b0', revidr: '0x0', caches: caches(64 * 1024) },
  ])
})

test('where Linux shows no registers, nothing is known of the CPUs', () => {
  assert.equal(readCpuKinds(sysfs({ 'cpu0/online': '1' })), undefined)
  assert.equal(readCpuKinds(join(sysfs({}), 'none')), undefined)
  assert.equal(readCpuKinds(sysfs({ 'cpu0/regs/identification/midr_el1': 'garbage' })), undefined)
})

test('a thread is kept on the lowest CPU it may run on, and then set free again', () => {
  const masks: string[] = []
  const affinity = {
    getAffinity: (mask: Uint8Array) => {
      mask.set([0, 0b1010_1000, 0xff])
      return 0
    },
    setAffinity: (mask: Uint8Array) => {
      masks.push([...mask.subarray(0, 3)].join())
      return 0
    },
  }
  const pinned = pinToLowest(affinity)
  assert.ok(typeof pinned !== 'number')
  assert.equal(pinned.cpu, 11)
  pinned.release()
  assert.deepEqual(masks, ['0,8,0', '0,168,255'])
})

test('a refusal is passed on', () => {
  const refused = { getAffinity: () => -22, setAffinity: () => 0 }
  assert.equal(pinToLowest(refused), -22)
  assert.equal(
    pinToLowest({ ...refused, getAffinity: (mask) => ((mask[0] = 1), 0), setAffinity: () => -1 }),
    -1,
  )
})
