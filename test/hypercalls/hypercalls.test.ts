import assert from 'node:assert/strict'
import { test } from 'vitest'
import * as fc from 'fast-check'
import {
  allowedByDefault,
  bitmapOfServices,
  decodeFunctionId,
  decodePsciVersion,
  encodeFunctionId,
  encodePsciVersion,
  functionName,
  functionNamed,
  functionOf,
  gateOf,
  hypercallFunctions,
  knownMask,
  nearestFunctionNames,
  ownerName,
  psci01Functions,
  psciFunctions,
  psciVersions,
  serviceBitmapOf,
  serviceBitmaps,
  type ServiceGroup,
  servicesInBitmap,
  workarounds,
} from '../../lib/hypercalls/index.js'

const anyFunctionId = fc.integer({ min: 0, max: 0xffff_ffff })
const groups = Object.keys(serviceBitmaps) as ServiceGroup[]

test('function ids have the names of the documents that define them', () => {
  for (const [id, name, owner, wide] of [
    [0x80000000, 'SMCCC_VERSION', 'Arm architecture', false],
    [0x80000001, 'SMCCC_ARCH_FEATURES', 'Arm architecture', false],
    [0x80000002, 'SMCCC_ARCH_SOC_ID', 'Arm architecture', false],
    [0x80008000, 'SMCCC_ARCH_WORKAROUND_1', 'Arm architecture', false],
    [0x80007fff, 'SMCCC_ARCH_WORKAROUND_2', 'Arm architecture', false],
    [0x80003fff, 'SMCCC_ARCH_WORKAROUND_3', 'Arm architecture', false],
    [0x84000000, 'PSCI_VERSION', 'standard secure service', false],
    [0xc4000003, 'PSCI_CPU_ON_64', 'standard secure service', true],
    [0x8400000a, 'PSCI_FEATURES', 'standard secure service', false],
    [0xc4000015, 'PSCI_SYSTEM_OFF2_64', 'standard secure service', true],
    [0x84000050, 'TRNG_VERSION', 'standard secure service', false],
    [0xc4000053, 'TRNG_RND64', 'standard secure service', true],
    [0xc5000020, 'PV_TIME_FEATURES', 'standard hypervisor service', true],
    [0x8600ff01, 'VENDOR_HYP_CALL_UID', 'vendor hypervisor service', false],
    [0x86000001, 'KVM_PTP', 'vendor hypervisor service', false],
    [0xc6000041, 'KVM_DISCOVER_IMPL_CPUS', 'vendor hypervisor service', true],
  ] as const) {
    assert.equal(functionName(id), name)
    const parts = decodeFunctionId(id)
    assert.deepEqual([parts.fast, parts.wide, ownerName(parts.owner)], [true, wide, owner], name)
  }
  assert.equal(functionName(0x95c1ba60), 'KVM_PSCI_CPU_ON')
  assert.equal(functionName(0x84), '0x00000084')
})

test('no two functions share an id or a name, and each is found by both', () => {
  assert.equal(new Set(hypercallFunctions.map(({ id }) => id)).size, hypercallFunctions.length)
  for (const entry of hypercallFunctions) {
    assert.equal(functionOf(entry.id), entry)
    assert.equal(functionNamed(entry.name), entry)
    assert.equal(functionNamed(`arm_${entry.name.toLowerCase()}`), entry)
  }
  assert.equal(functionNamed('TRNG'), undefined)
  assert.deepEqual(nearestFunctionNames('TRNG_RDN64'), ['TRNG_RND64'])
})

test('every 32-bit number is the sum of its parts', () => {
  fc.assert(fc.property(anyFunctionId, (id) => encodeFunctionId(decodeFunctionId(id)) === id))
  for (const id of [-1, 2 ** 32, 0.5, Number.NaN]) assert.throws(() => decodeFunctionId(id), RangeError)
  assert.deepEqual([0, 1, 7, 48, 50, 63].map(ownerName), [
    'Arm architecture',
    'CPU',
    'reserved',
    'trusted application',
    'trusted OS',
    'trusted OS',
  ])
})

test('the bitmap registers have the bits, names and reset values of the kernel', () => {
  const table = Object.values(serviceBitmaps).flatMap(({ register, name, resetValue, services }) =>
    services.map(
      (service) => [register, name, resetValue, service.bit, service.name, service.kernelName] as const,
    ),
  )
  assert.deepEqual(table, [
    [0x6030000000160000n, 'KVM_REG_ARM_STD_BMAP', 1n, 0, 'trng-v1.0', 'KVM_REG_ARM_STD_BIT_TRNG_V1_0'],
    [0x6030000000160001n, 'KVM_REG_ARM_STD_HYP_BMAP', 1n, 0, 'pv-time', 'KVM_REG_ARM_STD_HYP_BIT_PV_TIME'],
    [
      0x6030000000160002n,
      'KVM_REG_ARM_VENDOR_HYP_BMAP',
      3n,
      0,
      'features',
      'KVM_REG_ARM_VENDOR_HYP_BIT_FUNC_FEAT',
    ],
    [0x6030000000160002n, 'KVM_REG_ARM_VENDOR_HYP_BMAP', 3n, 1, 'ptp', 'KVM_REG_ARM_VENDOR_HYP_BIT_PTP'],
    [
      0x6030000000160003n,
      'KVM_REG_ARM_VENDOR_HYP_BMAP_2',
      0n,
      0,
      'discover-impl-ver',
      'KVM_REG_ARM_VENDOR_HYP_BIT_DISCOVER_IMPL_VER',
    ],
    [
      0x6030000000160003n,
      'KVM_REG_ARM_VENDOR_HYP_BMAP_2',
      0n,
      1,
      'discover-impl-cpus',
      'KVM_REG_ARM_VENDOR_HYP_BIT_DISCOVER_IMPL_CPUS',
    ],
  ])
  assert.deepEqual(groups.map(knownMask), [1n, 1n, 3n, 3n])
  for (const bitmap of Object.values(serviceBitmaps)) assert.equal(serviceBitmapOf(bitmap.register), bitmap)
  assert.equal(serviceBitmapOf(0x6030000000140000n), undefined)
})

test('services and bitmap values turn into each other', () => {
  assert.deepEqual(servicesInBitmap('vendorHyp', 3n), ['features', 'ptp'])
  assert.deepEqual(servicesInBitmap('vendorHyp', 0x22n), ['ptp', 'bit-5'])
  assert.equal(bitmapOfServices('vendorHyp', ['ptp']), 2n)
  assert.equal(bitmapOfServices('std', []), 0n)
  fc.assert(
    fc.property(
      fc.constantFrom(...groups),
      fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }),
      (group, value) => bitmapOfServices(group, servicesInBitmap(group, value)) === value,
    ),
  )
})

test('a service that is not of the bitmap is refused by name', () => {
  assert.throws(() => bitmapOfServices('vendorHyp', ['ptpp']), {
    code: 'ERR_KVM_UNKNOWN_SERVICE',
    message: 'KVM_REG_ARM_VENDOR_HYP_BMAP has no service "ptpp"; did you mean ptp?',
  })
  assert.throws(
    () => bitmapOfServices('std', ['pv-time']),
    /KVM_REG_ARM_STD_BMAP.*"pv-time"; it has trng-v1\.0/,
  )
  assert.throws(() => bitmapOfServices('std', ['bit-64']), RangeError)
})

test('each call is gated as the kernel gates it', () => {
  for (const [id, expected] of [
    [0x84000050, 'std.0'],
    [0x84000051, 'std.0'],
    [0x84000052, 'std.0'],
    [0x84000053, 'std.0'],
    [0xc4000053, 'std.0'],
    [0xc5000020, 'stdHyp.0'],
    [0xc5000021, 'stdHyp.0'],
    [0x8600ff01, 'vendorHyp.0'],
    [0x86000000, 'vendorHyp.0'],
    [0x86000001, 'vendorHyp.1'],
    [0xc6000040, 'denied'],
    [0xc6000041, 'denied'],
    [0xc6000002, 'denied'],
    [0x80000000, 'default'],
    [0x80000001, 'default'],
    [0x80000002, 'denied'],
    [0x80008000, 'denied'],
    [0x84000000, 'default'],
    [0x8400001f, 'default'],
    [0x84000020, 'denied'],
    [0xc4000003, 'default'],
    [0x04000003, 'default'],
    [0x84010000, 'default'],
    [0x95c1ba5d, 'denied'],
    [0x95c1ba5e, 'default'],
    [0x95c1ba61, 'default'],
    [0x95c1ba62, 'denied'],
    [0xc4000050, 'denied'],
    [0, 'denied'],
  ] as const) {
    const gate = gateOf(id)
    assert.equal(
      typeof gate === 'string' ? gate : `${gate.group}.${gate.bit}`,
      expected,
      `0x${id.toString(16)}`,
    )
  }
})

test('a gated call is never allowed by default, and every PSCI call is', () => {
  for (const { services } of Object.values(serviceBitmaps)) {
    for (const id of services.flatMap(({ functions }) => functions)) assert.equal(allowedByDefault(id), false)
  }
  for (const { id, id64 } of [...psciFunctions, ...psci01Functions]) {
    assert.ok(allowedByDefault(id))
    assert.ok(id64 === undefined || allowedByDefault(id64))
  }
})

test('PSCI versions are text and number', () => {
  assert.deepEqual(psciVersions.map(encodePsciVersion), [1n, 2n, 0x10000n, 0x10001n, 0x10002n, 0x10003n])
  for (const version of psciVersions) assert.equal(decodePsciVersion(encodePsciVersion(version)), version)
  fc.assert(
    fc.property(
      fc.bigInt({ min: 0n, max: 0xffff_ffffn }),
      (value) => encodePsciVersion(decodePsciVersion(value)) === value,
    ),
  )
  for (const text of ['', '1', '1.', '1.1.1', '01.1', '1.65536', '65536.0', 'v1.1']) {
    assert.throws(() => encodePsciVersion(text), RangeError, text)
  }
  for (const value of [-1n, 1n << 32n]) assert.throws(() => decodePsciVersion(value), RangeError)
})

test('PSCI functions are told with the version that brought them', () => {
  const since = new Map(psciFunctions.map(({ name, since: version }) => [name, version]))
  assert.equal(since.get('PSCI_CPU_ON'), '0.2')
  assert.equal(since.get('PSCI_FEATURES'), '1.0')
  assert.equal(since.get('PSCI_SYSTEM_RESET2'), '1.1')
  assert.equal(since.get('PSCI_SYSTEM_OFF2'), '1.3')
  assert.deepEqual(
    psci01Functions.filter(({ kvm }) => kvm).map(({ name }) => name),
    ['KVM_PSCI_CPU_OFF', 'KVM_PSCI_CPU_ON'],
  )
})

test('workaround levels tell what a guest sees', () => {
  assert.deepEqual(
    workarounds.map(({ register, functionId, levels }) => [
      register & 0xffn,
      functionId,
      levels.map(({ value, archFeatures }) => [value, archFeatures]),
    ]),
    [
      [
        1n,
        0x80008000,
        [
          [0n, -1],
          [1n, 0],
          [2n, 1],
        ],
      ],
      [
        2n,
        0x80007fff,
        [
          [0n, -1],
          [1n, -1],
          [2n, 0],
          [3n, -2],
        ],
      ],
      [
        3n,
        0x80003fff,
        [
          [0n, -1],
          [1n, 0],
          [2n, 1],
        ],
      ],
    ],
  )
})
