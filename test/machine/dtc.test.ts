/** Debian's device tree compiler reads the trees this package writes, and finds nothing to complain about. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { beforeAll, describe, test } from 'vitest'
import { type DeviceNode, encodeDeviceTree } from '../../lib/machine/device-tree.js'
import { type Hardware, hardwareTree } from '../../lib/machine/hardware-tree.js'
import { ensurePrograms } from '../debian.js'

beforeAll(() => ensurePrograms(['dtc']))

/** Returns the source of a tree as dtc reads it; fails on any warning. */
function decompile(root: DeviceNode): string {
  const input = encodeDeviceTree(root)
  const { status, stdout, stderr } = spawnSync('dtc', ['-I', 'dtb', '-O', 'dts'], { input, encoding: 'utf8' })
  assert.equal(stderr, '')
  assert.equal(status, 0)
  return stdout
}

const hardware: Hardware = {
  vcpus: 1,
  memory: 0x1000_0000,
  gic: 3,
  virtioDevices: 0,
  commandLine: 'console=ttyS0',
  initrd: undefined,
  rngSeed: Uint8Array.of(1, 2, 3, 4),
  kaslrSeed: 0x0123_4567_89ab_cdefn,
}

describe('the tree of a machine', () => {
  for (const [name, changes] of [
    ['with one vCPU', {}],
    ['with 126 vCPUs and 32 virtio devices', { vcpus: 126, virtioDevices: 32 }],
    ['with a GICv2', { gic: 2, vcpus: 8 }],
    ['with an initrd', { initrd: { base: 0x4400_0000, size: 12_345 } }],
    ['with 64 GiB', { memory: 64 * 2 ** 30 }],
  ] as const) {
    test(`${name} draws no warning`, () => {
      const source = decompile(hardwareTree({ ...hardware, ...changes }))
      assert.match(source, /compatible = "linux,dummy-virt"/)
    })
  }

  test('says what the machine has', () => {
    const initrd = { base: 0x4400_0000, size: 0x1000 }
    const source = decompile(hardwareTree({ ...hardware, vcpus: 17, virtioDevices: 2, initrd }))
    for (const line of [
      'bootargs = "console=ttyS0"',
      'rng-seed = [01 02 03 04]|<0x01020304>|<0x1020304>',
      'kaslr-seed = <0x1234567 0x89abcdef>',
      'linux,initrd-start = <0x00 0x44000000>',
      'linux,initrd-end = <0x00 0x44001000>',
      'reg = <0x00 0x40000000 0x00 0x10000000>',
      'enable-method = "psci"',
      'compatible = "arm,gic-v3"',
      'compatible = "ns16550a"',
      'compatible = "virtio,mmio"',
    ]) {
      const found = line
        .split('|')
        .some((form) => source.replaceAll('0x00', '0x0').includes(form.replaceAll('0x00', '0x0')))
      assert.ok(found, `${line}\n${source}`)
    }
    // vCPU 16 is the first of the next cluster, as KVM numbers them.
    assert.match(source, /cpu@f \{[^]*cpu@100 \{/)
  })
})

test('every kind of value arrives as it was given', () => {
  const source = decompile({
    properties: {
      empty: true,
      text: 'a "quoted" text',
      texts: ['one', 'two'],
      cells: [1, 0xffff_ffff],
      wide: [0x0000_0001_0000_0002n],
      bytes: Uint8Array.of(0xff, 0, 0x7f),
    },
    children: { a: { properties: { text: 'in a child' } }, b: { properties: {} } },
  })
  assert.match(source, /\tempty;/)
  assert.match(source, /text = "a \\"quoted\\" text"/)
  assert.match(source, /texts = "one", "two"|texts = "one\\0two"/)
  assert.match(source, /cells = <0x0*1 0xffffffff>/)
  assert.match(source, /wide = <0x0*1 0x0*2>/)
  assert.match(source, /bytes = \[ff 00 7f\]/)
  assert.match(source, /a \{\n\t\ttext = "in a child"/)
  assert.match(source, /b \{\n\t\}/)
})
