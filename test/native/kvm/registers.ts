import assert from 'node:assert/strict'
import { once } from 'node:events'
import { after, before, describe, it } from 'node:test'
import { Worker } from 'node:worker_threads'
import type { VcpuFd } from '../../../lib/backend.js'
import { capabilities, errnos, KVM_ARM_VCPU_SVE, vcpuFeatures } from '../../../lib/uapi.js'
import { arm64Handles, opened, preferredTarget, x, type Handles } from '../handles.js'

const stdBmap = 0x6030000000160000n
const fpsr = 0x60200000001000d4n
const fpcr = 0x60200000001000d5n

function vector(n: number): bigint {
  return 0x6040000000100054n + BigInt(4 * n)
}

/** A value whose every byte is different from its neighbours and depends on `seed`. */
function pattern(bits: number, seed: number): bigint {
  let value = 0n
  for (let byte = 0; byte < bits / 8; byte++)
    value = (value << 8n) | BigInt((byte * 37 + seed * 11 + 1) & 0xff)
  return value
}

function listOf(vcpu: VcpuFd): BigUint64Array {
  const list = new BigUint64Array(8193)
  list[0] = 8192n
  assert.equal(vcpu.getRegList(list), 0)
  return list.slice(1, 1 + Number(list[0]))
}

function withWidth(id: bigint, field: number): bigint {
  return (id & ~(0xfn << 52n)) | (BigInt(field) << 52n)
}

describe('One register', () => {
  let handles: Handles
  let vcpu: VcpuFd
  before(() => {
    handles = arm64Handles()
    vcpu = handles.vcpu
  })
  after(() => handles.close())

  const widths: readonly { name: string; bits: number; id: (n: number) => bigint; count: number }[] = [
    { name: 'x0 to x30', bits: 64, id: x, count: 31 },
    { name: 'v0 to v31', bits: 128, id: vector, count: 32 },
    { name: 'FPSR', bits: 32, id: () => fpsr, count: 1 },
  ]
  for (const { name, bits, id, count } of widths) {
    it(`of ${bits} bits is written and read back: ${name}`, () => {
      const mask = id(0) === fpsr ? 0x0800009fn : (1n << BigInt(bits)) - 1n
      const values = Array.from({ length: count }, (_, n) => pattern(bits, n) & mask)
      for (const [n, value] of values.entries()) assert.equal(vcpu.setOneReg(id(n), value), 0)
      for (const [n, value] of values.entries()) assert.equal(vcpu.getOneReg(id(n)), value)
      for (const value of [mask, 0n]) {
        assert.equal(vcpu.setOneReg(id(0), value), 0)
        assert.equal(vcpu.getOneReg(id(0)), value)
      }
    })
  }

  it('of 32 bits reads as a bigint', () => {
    assert.equal(typeof vcpu.getOneReg(fpcr), 'bigint')
  })

  it('takes no value wider than itself', () => {
    for (const [id, bits] of [
      [fpsr, 32n],
      [x(1), 64n],
      [vector(1), 128n],
    ] as const) {
      assert.throws(() => vcpu.setOneReg(id, 1n << bits), {
        code: 'ERR_OUT_OF_RANGE',
        message: new RegExp(`${bits} bits`),
      })
    }
  })

  it('that the kernel does not know answers ENOENT, or EINVAL for another architecture', () => {
    assert.equal(vcpu.getOneReg(0x603000000016ffffn), -errnos.ENOENT)
    assert.equal(vcpu.setOneReg(0x603000000016ffffn, 0n), -errnos.ENOENT)
    assert.equal(vcpu.getOneReg(0x2030000000160000n), -errnos.EINVAL)
    assert.equal(vcpu.setOneReg(0x2030000000160000n, 0n), -errnos.EINVAL)
  })

  it('at a null address shows how far the kernel gets', () => {
    assert.equal(vcpu.getOneRegAtNull(x(0)), -errnos.EFAULT)
    assert.equal(vcpu.setOneRegAtNull(x(0)), -errnos.EFAULT)
    assert.equal(vcpu.getOneRegAtNull(0x603000000014ffffn), -errnos.ENOENT)
    assert.equal(vcpu.setOneRegAtNull(0x603000000014ffffn), -errnos.EFAULT)
  })

  it('of the firmware has 64 bits; at any other width it does not exist', () => {
    const firmware = [0x6030000000140000n, stdBmap, 0x6030000000140001n]
    for (const id of firmware) {
      for (let field = 0; field <= 8; field++) {
        if (field === 3) continue
        const other = withWidth(id, field)
        assert.equal(vcpu.getOneReg(other), -errnos.ENOENT)
        assert.equal(vcpu.getOneRegAtNull(other), -errnos.ENOENT)
        // On 5.10 the bitmaps' coprocessor is one the kernel does not know, with the same answer.
        assert.equal(vcpu.setOneReg(other, 0n), -errnos.ENOENT)
        assert.equal(vcpu.setOneReg(other, (1n << (8n << BigInt(field))) - 1n), -errnos.ENOENT)
        assert.equal(vcpu.setOneRegAtNull(other), -errnos.ENOENT)
      }
    }
  })

  it('answers ENOEXEC before the vCPU is initialised, at any width', () => {
    const vcpu1 = opened(handles.vm.createVcpu(1))
    for (let field = 0; field <= 8; field++) {
      const id = withWidth(stdBmap, field)
      assert.equal(vcpu1.getOneReg(id), -errnos.ENOEXEC)
      assert.equal(vcpu1.setOneReg(id, 0n), -errnos.ENOEXEC)
      assert.equal(vcpu1.getOneRegAtNull(id), -errnos.ENOEXEC)
      assert.equal(vcpu1.setOneRegAtNull(id), -errnos.ENOEXEC)
    }
    vcpu1.close()
  })
})

describe('The register list', () => {
  let handles: Handles
  before(() => {
    handles = arm64Handles()
  })
  after(() => handles.close())

  it('tells its length when there is not enough room', () => {
    const { vcpu } = handles
    const count = BigInt(listOf(vcpu).length)
    assert.ok(count > 100n)
    for (const room of [0n, 1n, count - 1n]) {
      const list = new BigUint64Array(1 + Number(room))
      list[0] = room
      assert.equal(vcpu.getRegList(list), -errnos.E2BIG)
      assert.equal(list[0], count)
    }
    const exact = new BigUint64Array(1 + Number(count))
    exact[0] = count
    assert.equal(vcpu.getRegList(exact), 0)
    assert.deepEqual(exact.slice(1), listOf(vcpu))
  })

  it('believes the low half of the count alone, and writes nowhere else', () => {
    const { vcpu } = handles
    const ids = listOf(vcpu)
    const list = new BigUint64Array(1 + ids.length)
    list[0] = 1n << 32n
    assert.equal(vcpu.getRegList(list), -errnos.E2BIG)
    assert.equal(list[0], BigInt(ids.length))
    list[0] = (1n << 32n) + BigInt(ids.length)
    assert.equal(vcpu.getRegList(list), 0)
    assert.deepEqual(list.slice(1), ids)
  })

  it('is not written beyond its end, whoever changes its count meanwhile', async () => {
    const memory = new BigUint64Array(new SharedArrayBuffer(65536))
    const list = memory.subarray(0, 4)
    const changeCount = `const { workerData: memory } = require('node:worker_threads'); for (;;) memory[0] = 4000n`
    const worker = new Worker(changeCount, { eval: true, workerData: memory })
    await once(worker, 'online')
    const end = performance.now() + 5000
    while (performance.now() < end && memory[4] === 0n) {
      list[0] = 3n
      try {
        handles.vcpu.getRegList(list)
      } catch {
        // The worker was quicker.
      }
    }
    await worker.terminate()
    assert.ok(memory.subarray(4).every((word) => word === 0n))
  })

  it('names registers that all can be read', () => {
    const { vcpu } = handles
    for (const id of listOf(vcpu)) assert.equal(typeof vcpu.getOneReg(id), 'bigint', `0x${id.toString(16)}`)
  })
})

describe('A batch of registers', () => {
  let handles: Handles
  before(() => {
    handles = arm64Handles()
  })
  after(() => handles.close())

  it('reads what single calls read', () => {
    const { vcpu } = handles
    const ids = listOf(vcpu)
    const values = new BigUint64Array(ids.length).fill(~0n)
    const answers = new Int32Array(ids.length).fill(99)
    const wide = ids.filter((id) => ((id >> 52n) & 0xfn) > 3n)
    assert.equal(vcpu.getRegs(ids, values, answers), wide.length)
    // Clocks go on between two calls.
    const ticking = new Set([
      0x603000000013df1an,
      0x603000000013df01n,
      0x603000000013df11n,
      0x603000000013df29n,
    ])
    for (const [i, id] of ids.entries()) {
      if (wide.includes(id)) {
        assert.deepEqual([answers[i], values[i]], [-errnos.EINVAL, 0n])
      } else {
        assert.equal(answers[i], 0)
        if (!ticking.has(id)) assert.equal(values[i], vcpu.getOneReg(id), `0x${id.toString(16)}`)
      }
    }
  })

  it('writes each register, goes on after a failure and counts the failures', () => {
    const { vcpu } = handles
    const ids = BigUint64Array.of(x(0), 0x603000000016ffffn, x(1), vector(0), fpsr)
    const answers = new Int32Array(ids.length)
    assert.equal(vcpu.setRegs(ids, BigUint64Array.of(1n, 2n, (1n << 64n) - 1n, 4n, 0x9fn), answers), 2)
    assert.deepEqual([...answers], [0, -errnos.ENOENT, 0, -errnos.EINVAL, 0])
    const values = new BigUint64Array(ids.length).fill(77n)
    assert.equal(vcpu.getRegs(ids, values, answers), 2)
    assert.deepEqual([...values], [1n, 0n, (1n << 64n) - 1n, 0n, 0x9fn])
    assert.deepEqual([...answers], [0, -errnos.ENOENT, 0, -errnos.EINVAL, 0])
  })

  it('writes nothing at all when one value is wider than its register', () => {
    const { vcpu } = handles
    assert.equal(vcpu.setOneReg(x(0), 5n), 0)
    const ids = BigUint64Array.of(x(0), fpsr)
    assert.throws(() => vcpu.setRegs(ids, BigUint64Array.of(6n, 1n << 32n), new Int32Array(2)), RangeError)
    assert.equal(vcpu.getOneReg(x(0)), 5n)
  })

  it('may be empty, and may read into the array of its ids', () => {
    const { vcpu } = handles
    assert.equal(vcpu.getRegs(new BigUint64Array(0), new BigUint64Array(0), new Int32Array(0)), 0)
    assert.equal(vcpu.setOneReg(x(3), 42n), 0)
    const inPlace = BigUint64Array.of(x(3), x(3))
    assert.equal(vcpu.getRegs(inPlace, inPlace, new Int32Array(2)), 0)
    assert.deepEqual([...inPlace], [42n, 42n])
  })
})

function z(n: number): bigint {
  return 0x6080000000150000n | BigInt(n << 5)
}

function p(n: number): bigint {
  return 0x6050000000150400n | BigInt(n << 5)
}

describe('SVE', () => {
  const features = (1 << vcpuFeatures['psci-0.2']) | (1 << vcpuFeatures.sve)
  const lengths = 0x606000000015ffffn
  const ffr = 0x6050000000150600n

  it('registers of 256, 512 and 2048 bits are written and read back where the host has them', () => {
    const handles = arm64Handles()
    const { system, vm } = handles
    const vcpu = opened(vm.createVcpu(1))
    const hasSve = system.checkExtension(capabilities.KVM_CAP_ARM_SVE) > 0
    const initialised = vcpu.init(preferredTarget(vm), [hasSve ? features : 1 << vcpuFeatures.sve])
    if (!hasSve) {
      assert.equal(initialised, -errnos.EINVAL)
      handles.close()
      vcpu.close()
      return
    }
    // Kernels with one set of features for a VM refuse the second vCPU another: a VM of its own then.
    handles.close()
    vcpu.close()
    const own = sveHandles()
    const vectorLengths = own.vcpu.getOneReg(lengths)
    assert.ok(typeof vectorLengths === 'bigint' && (vectorLengths & 1n) === 1n)
    assert.ok(vectorLengths < 1n << 16n)
    assert.equal(own.vcpu.setOneReg(lengths, vectorLengths), 0)
    assert.throws(() => own.vcpu.setOneReg(lengths, 1n << 512n), RangeError)

    assert.equal(own.vcpu.getRegList(new BigUint64Array(1)), -errnos.EPERM)
    assert.equal(own.vcpu.getOneReg(z(0)), -errnos.EPERM)
    assert.equal(own.vcpu.finalize(KVM_ARM_VCPU_SVE), 0)
    assert.equal(own.vcpu.setOneReg(lengths, vectorLengths), -errnos.EPERM)

    // The vector length in bits: what lies above it in a register reads as zero.
    const bits = 128 * vectorLengths.toString(2).length
    for (let n = 0; n < 32; n++) assert.equal(own.vcpu.setOneReg(z(n), pattern(bits, n)), 0)
    for (let n = 0; n < 16; n++) assert.equal(own.vcpu.setOneReg(p(n), pattern(bits / 8, n)), 0)
    assert.equal(own.vcpu.setOneReg(ffr, pattern(bits / 8, 77)), 0)
    for (let n = 0; n < 32; n++) assert.equal(own.vcpu.getOneReg(z(n)), pattern(bits, n))
    for (let n = 0; n < 16; n++) assert.equal(own.vcpu.getOneReg(p(n)), pattern(bits / 8, n))
    assert.equal(own.vcpu.getOneReg(ffr), pattern(bits / 8, 77))
    assert.throws(() => own.vcpu.setOneReg(z(0), 1n << 2048n), RangeError)
    assert.equal(typeof own.vcpu.setOneReg(z(1), (1n << 2048n) - 1n), 'number')
    const all = listOf(own.vcpu)
    for (const id of all) assert.equal(typeof own.vcpu.getOneReg(id), 'bigint', `0x${id.toString(16)}`)
    assert.equal(all.filter((id) => ((id >> 52n) & 0xfn) === 8n).length, 32)
    own.close()
  })

  function sveHandles(): Handles {
    const plain = arm64Handles()
    const vm = opened(plain.system.createVm(0n))
    const vcpu = opened(vm.createVcpu(0))
    assert.equal(vcpu.init(preferredTarget(vm), [features]), 0)
    return {
      system: plain.system,
      vm,
      vcpu,
      close: () => {
        vcpu.close()
        vm.close()
        plain.close()
      },
    }
  }
})
