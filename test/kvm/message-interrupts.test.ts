import assert from 'node:assert/strict'
import { it } from 'vitest'
import { openKvm, type Vm } from '../../lib/kvm/index.js'
import { simulator } from '../../lib/hosts/index.js'
import { packGsiRoutes, routeTypes, unpackGsiRoutes } from '../../lib/uapi.js'

function newVm(): Vm {
  return openKvm(simulator('linux-6.12-neoverse-n1')).createVm()
}

const MESSAGE = { address: 0x1_0809_0040n, data: 3, deviceId: 8 }

it('says what a message lacks', () => {
  const vm = newVm()
  assert.throws(() => vm.signalMsi(MESSAGE), { code: 'EINVAL', message: /GITS_TRANSLATER.*0x108090040/ })
  vm.createDevice('KVM_DEV_TYPE_ARM_VGIC_V3')
  assert.throws(() => vm.signalMsi(MESSAGE), { code: 'ENODEV', message: /its: \[address\]/ })
  assert.throws(() => vm.signalMsi({ ...MESSAGE, data: -1 }), RangeError)
  assert.throws(() => vm.signalMsi({ ...MESSAGE, pin: 1 } as never), TypeError)
  vm.close()
  assert.throws(() => vm.signalMsi(MESSAGE), { code: 'ERR_KVM_CLOSED' })
})

it('routes interrupts to pins and messages', () => {
  const vm = newVm()
  vm.setGsiRouting([
    { gsi: 0, pin: 987 },
    { gsi: 4095, ...MESSAGE },
    { gsi: 2, address: 0n, data: 0 },
  ])
  vm.setGsiRouting([])
  const einval = { code: 'EINVAL', message: /one for each GSI/ }
  assert.throws(() => vm.setGsiRouting([{ gsi: 4096, pin: 0 }]), einval)
  assert.throws(() => vm.setGsiRouting([{ gsi: 0, pin: 988 }]), einval)
  assert.throws(() => vm.setGsiRouting([1, 1].map((gsi) => ({ gsi, pin: 0 }))), einval)
  assert.throws(() => vm.setGsiRouting(Array.from({ length: 4097 }, (_, gsi) => ({ gsi, pin: 0 }))), einval)
  assert.throws(() => vm.setGsiRouting([null as never]), TypeError)
  assert.throws(() => vm.setGsiRouting([{ gsi: 0, pin: 0, address: 0n }]), TypeError)
  assert.throws(() => vm.setGsiRouting([{ gsi: 0, pin: 2 ** 32 }]), RangeError)
  vm.close()
  assert.throws(() => vm.setGsiRouting([]), { code: 'ERR_KVM_CLOSED' })
})

it('packs routes as the kernel reads them', () => {
  const routes = [
    { gsi: 7, type: routeTypes.irqchip, flags: 0, words: [0, 9, 0, 0] },
    { gsi: 8, type: routeTypes.msi, flags: 1, words: [0x809_0040, 1, 3, 8] },
  ]
  const packed = packGsiRoutes(routes)
  assert.deepEqual([...packed.subarray(0, 8)], [7, 1, 0, 0, 0, 9, 0, 0])
  assert.deepEqual([...packed.subarray(12)], [8, 2, 1, 0, 0x809_0040, 1, 3, 8, 0, 0, 0, 0])
  assert.deepEqual(unpackGsiRoutes(packed), routes)
})
