import assert from 'node:assert/strict'
import { gzipSync } from 'node:zlib'
import * as fc from 'fast-check'
import { describe, test } from 'vitest'
import { MachineError } from '../../lib/machine/errors.js'
import { readKernelImage } from '../../lib/machine/image.js'
import { kernelImage, zbootImage } from './images.js'

function refused(file: Uint8Array, problem: RegExp): void {
  assert.throws(
    () => readKernelImage(file),
    (error) =>
      error instanceof MachineError && error.code === 'ERR_MACHINE_KERNEL' && problem.test(error.message),
  )
}

describe('a kernel is read', () => {
  const plain = kernelImage({ textOffset: 0x8_0000n })
  const expected = { bytes: plain, textOffset: 0x8_0000, size: 0x2000 }
  for (const [form, file] of [
    ['as an Image', plain],
    ['packed with gzip', gzipSync(plain)],
    ['as an EFI zboot image', zbootImage('gzip', gzipSync(plain))],
  ] as const) {
    test(form, () => {
      const { bytes, ...rest } = readKernelImage(file)
      assert.deepEqual({ bytes: Buffer.from(bytes), ...rest }, expected)
    })
  }
})

describe('a kernel is refused', () => {
  for (const [why, file, problem] of [
    ['for nothing in it', Buffer.alloc(0), /0 bytes/],
    ['for another magic number', kernelImage({ magic: 0 }), /no arm64 Image/],
    ['as an ELF file', Buffer.from(`\x7fELF${' '.repeat(100)}`), /ELF file: give arch\/arm64\/boot\/Image/],
    ['for x86', Buffer.concat([Buffer.alloc(0x202), Buffer.from(`HdrS${' '.repeat(64)}`)]), /for x86/],
    ['from before 3.17', kernelImage({ size: 0n }), /before Linux 3\.17/],
    ['for a size beyond everything', kernelImage({ size: 1n << 60n }), /damaged/],
    ['for less memory than its file', kernelImage({ size: 16n }), /longer than the size/],
    ['for an offset beyond 2 MiB', kernelImage({ textOffset: 1n << 21n }), /damaged/],
    [
      'for an offset between pages',
      kernelImage({ textOffset: 0x1f_ffffn }),
      /begins at 2097151, not on a page/,
    ],
    ['cut off', gzipSync(kernelImage()).subarray(0, -9), /cannot be unpacked \(gzip\)/],
    [
      'damaged in its packing',
      Buffer.concat([gzipSync(kernelImage()).subarray(0, 30), Buffer.alloc(100)]),
      /cannot be unpacked \(gzip\)/,
    ],
    ['packed with xz', zbootImage('xzkern', Buffer.alloc(8)), /packed with "xzkern"/],
    [
      'packed with a name of objects',
      zbootImage('constructor', Buffer.alloc(8)),
      /packed with "constructor"/,
    ],
    ['with a payload beyond its end', zbootImage('gzip', gzipSync(kernelImage()), 1 << 30), /cut off/],
  ] as const) {
    test(why, () => refused(file, problem))
  }

  test('that unpacks without end', () => {
    const mebibyte = gzipSync(Buffer.alloc(1 << 20))
    const endless = Buffer.concat(Array<Buffer>(1025).fill(mebibyte))
    refused(endless, /it would have more than 1 GiB/)
    refused(zbootImage('gzip', endless), /it would have more than 1 GiB/)
  })

  test('whatever is in the file', () => {
    const forms = [kernelImage(), gzipSync(kernelImage()), zbootImage('gzip', gzipSync(kernelImage()))]
    const flips = fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 6 })
    fc.assert(
      fc.property(fc.constantFrom(...forms), flips, (file, changes) => {
        const damaged = Buffer.from(file)
        // Most of what matters is in the first bytes.
        for (const [place, value] of changes) damaged[place % Math.min(80, damaged.length)] = value
        try {
          const { bytes, size, textOffset } = readKernelImage(damaged)
          assert.ok(bytes.length <= size && size <= 1 << 30 && textOffset < 0x20_0000)
        } catch (error) {
          assert.ok(error instanceof MachineError)
        }
      }),
    )
  })
})
