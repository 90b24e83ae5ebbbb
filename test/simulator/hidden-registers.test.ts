import assert from 'node:assert/strict'
import { test } from 'vitest'
import { encodeRegister } from '../../lib/registers/index.js'
import { builtInReport } from '../../lib/hosts/index.js'
import { errnos } from '../../lib/uapi.js'
import { get, listOf, newHost, runOnce, set, start, vcpuOf, withTraits } from './fixture.js'

const AFSR0_EL1 = encodeRegister('AFSR0_EL1')
const SSBS = 0xf0n

test('a register leaves the list while a field of an ID register hides it, on every vCPU, and keeps its value', () => {
  const { vm, vcpu } = start(newHost)
  const sibling = vcpuOf(vm, 1)
  const all = listOf(vcpu)
  const features = get(vcpu, 'ID_AA64PFR1_EL1') as bigint
  assert.equal(set(vcpu, 'AFSR0_EL1', 0x1234n), 0)
  assert.equal(set(vcpu, 'ID_AA64PFR1_EL1', features & ~SSBS), 0)
  for (const each of [vcpu, sibling]) {
    assert.deepEqual(
      listOf(each),
      all.filter((id) => id !== AFSR0_EL1),
    )
    assert.equal(get(each, 'AFSR0_EL1'), 'ENOENT')
    assert.equal(set(each, 'AFSR0_EL1', 1n), 'ENOENT')
    assert.equal(each.getOneRegAtNull(AFSR0_EL1), -errnos.ENOENT)
  }
  assert.equal(set(vcpu, 'ID_AA64PFR1_EL1', features), 0)
  assert.deepEqual(listOf(vcpu), all)
  assert.equal(get(vcpu, 'AFSR0_EL1'), 0x1234n)
})

test('E2BIG gives the number of registers that are listed', () => {
  const { vcpu } = start(newHost)
  const features = get(vcpu, 'ID_AA64PFR1_EL1') as bigint
  set(vcpu, 'ID_AA64PFR1_EL1', features & ~SSBS)
  const count = new BigUint64Array(1)
  assert.equal(vcpu.getRegList(count), -errnos.E2BIG)
  assert.equal(Number(count[0]), newHost.registers.length - 1)
})

test('a run does not cut a hidden register', () => {
  const { vcpu } = start(withTraits(newHost, { idRegisterAfterRun: 'unguarded' }))
  const features = get(vcpu, 'ID_AA64PFR1_EL1') as bigint
  set(vcpu, 'AFSR0_EL1', 0x1234n)
  set(vcpu, 'ID_AA64PFR1_EL1', features & ~SSBS)
  assert.equal(runOnce(vcpu), 'EINTR')
  set(vcpu, 'ID_AA64PFR1_EL1', features)
  assert.equal(get(vcpu, 'AFSR0_EL1'), 0x1234n)
})

test('a host with FEAT_TCR2 lists TCR2_EL1 only to VMs that have it', () => {
  const report = structuredClone(builtInReport('linux-6.18-max'))
  const [id, tcr2] = ['ID_AA64MMFR3_EL1', 'TCR2_EL1'].map((name) => `0x${encodeRegister(name).toString(16)}`)
  const row = report.registers.find((register) => register.id === id)!
  row.value = '0x1'
  row.write = { rule: 'nibbles', accepts: { '3:0': '0-1' } }
  const place = report.registers.findIndex((register) => register.id === id)
  report.registers.splice(place + 1, 0, { id: tcr2!, name: 'TCR2_EL1', value: '0x0' })
  report.traits.hiddenRegisters = [
    {
      id: id!,
      name: 'ID_AA64MMFR3_EL1',
      nibble: '3:0',
      values: '0',
      hides: [{ id: tcr2!, name: 'TCR2_EL1' }],
    },
  ]
  const { vcpu } = start(report)
  assert.equal(get(vcpu, 'TCR2_EL1'), 0n)
  assert.equal(set(vcpu, 'ID_AA64MMFR3_EL1', 0n), 0)
  assert.equal(listOf(vcpu).includes(BigInt(tcr2!)), false)
  assert.equal(set(vcpu, 'TCR2_EL1', 1n), 'ENOENT')
})
