/** Every bitmap register, bit and function of a service is known wherever one is needed. What the compiler sees is not tested. */
import assert from 'node:assert/strict'
import { describe, test } from 'vitest'
import { checkGroups } from '../../lib/conformance/index.js'
import {
  decodeFunctionId,
  functionOf,
  gatedServices,
  gateOf,
  psciVersions,
  serviceBitmaps,
  serviceOfBit,
  servicesInBitmap,
  bitmapOfServices,
} from '../../lib/hypercalls/index.js'
import { decodeRegister, idParts } from '../../lib/registers/index.js'

const bitmaps = Object.values(serviceBitmaps)
const services = bitmaps.flatMap((bitmap) => bitmap.services.map((service) => ({ bitmap, service })))

/** Bits that Documentation/virt/kvm/arm/fw-pseudo-registers.rst documents, as Linux 7.2 has it. */
const documented = [
  'KVM_REG_ARM_STD_BIT_TRNG_V1_0',
  'KVM_REG_ARM_STD_HYP_BIT_PV_TIME',
  'KVM_REG_ARM_VENDOR_HYP_BIT_FUNC_FEAT',
  'KVM_REG_ARM_VENDOR_HYP_BIT_PTP',
  'KVM_REG_ARM_VENDOR_HYP_BIT_DISCOVER_IMPL_VER',
  'KVM_REG_ARM_VENDOR_HYP_BIT_DISCOVER_IMPL_CPUS',
]

describe('the services', () => {
  test('are those of the kernel’s document', () => {
    assert.deepEqual(
      services.map(({ service }) => service.kernelName),
      documented,
    )
  })

  test('have registers of the bitmap space, and one place each', () => {
    for (const { register, name } of bitmaps) {
      assert.equal(idParts(register).coproc, 0x16, name)
      assert.equal(decodeRegister(register).space, 'bitmap')
    }
    const places = services.map(({ bitmap, service }) => `${bitmap.name} ${service.bit}`)
    assert.equal(new Set(places).size, services.length)
    assert.equal(new Set(services.map(({ service }) => service.name)).size, services.length)
    for (const { bitmap, service } of services) {
      assert.ok(Number.isInteger(service.bit) && service.bit >= 0 && service.bit < 64, service.name)
      assert.equal(serviceOfBit(bitmap, service.bit), service)
      const value = 1n << BigInt(service.bit)
      assert.deepEqual(servicesInBitmap(bitmap.group, value), [service.name])
      assert.equal(bitmapOfServices(bitmap.group, [service.name]), value)
    }
  })

  for (const { bitmap, service } of services) {
    const { name, kernelName, functions, gated, calls } = service

    test(`${name} has functions with a row, and a gate that says so`, () => {
      assert.ok(functions.length > 0)
      for (const id of functions) {
        assert.notEqual(functionOf(id), undefined, `${id}`)
        assert.equal(decodeFunctionId(id).fast, true)
        for (const psci of [undefined, ...psciVersions]) {
          const gate = gateOf(id, psci)
          if (gated) assert.equal(typeof gate === 'object' && gate.service, service)
          else assert.equal(gate, 'denied')
        }
      }
      assert.equal(bitmap.services.includes(service), true)
    })

    test(`${name} has a call that proves it, and calls of each function, if KVM answers`, () => {
      assert.equal(calls.length > 0, gated)
      if (gated) {
        const called = new Set(calls.map(({ functionId }) => functionId))
        assert.deepEqual(
          functions.filter((id) => !called.has(id)),
          [],
        )
      }
    })

    test(`${name} has a conformance check that names its bit`, () => {
      const named = checkGroups
        .flatMap(({ checks }) => checks)
        .filter((check) => check.name.includes(kernelName))
      assert.ok(named.length >= (gated ? 4 : 1), `${named.length} checks`)
    })
  }

  test('that KVM answers are the services of the report', () => {
    assert.deepEqual(
      gatedServices.map(({ name }) => name),
      ['trng-v1.0', 'pv-time', 'features', 'ptp'],
    )
  })
})

describe('the gate under a PSCI version', () => {
  const older = '0.1'
  const newer = psciVersions.filter((version) => version !== older)

  for (const [id, under01, underOthers] of [
    // SMCCC_VERSION and ARCH_FEATURES
    [0x80000000, 'default', 'default'],
    [0x80000001, 'default', 'default'],
    // the standard owner's first 32, whatever bits 31, 30 and 23:16 are
    [0x84000000, 'denied', 'default'],
    [0x84000003, 'denied', 'default'],
    [0xc4000003, 'denied', 'default'],
    [0x8400001f, 'denied', 'default'],
    [0x04000003, 'denied', 'default'],
    [0x84010000, 'denied', 'default'],
    [0x84000020, 'denied', 'denied'],
    // 0.1's: CPU_SUSPEND, CPU_OFF, CPU_ON, MIGRATE, and their neighbours
    [0x95c1ba5d, 'denied', 'denied'],
    [0x95c1ba5e, 'denied', 'denied'],
    [0x95c1ba5f, 'default', 'denied'],
    [0x95c1ba60, 'default', 'denied'],
    [0x95c1ba61, 'denied', 'denied'],
    [0x95c1ba62, 'denied', 'denied'],
    [0xc6000040, 'denied', 'denied'],
  ] as const) {
    test(`decides about 0x${id.toString(16)}`, () => {
      assert.equal(gateOf(id, older), under01)
      for (const version of newer) assert.equal(gateOf(id, version), underOthers)
    })
  }
})
