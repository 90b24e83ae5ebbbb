/** What the fuzzer leaves out with pKVM, because it harms the kernel. */
import assert from 'node:assert/strict'
import { it } from 'vitest'
import { fuzz } from '../../lib/fuzz/index.js'
import { simulator } from '../../lib/hosts/index.js'
import type { VmFd } from '../../lib/backend.js'
import { altered, open } from './backends.js'

const HOST = 'linux-6.18-neoverse-n1-pkvm'

/** Counts the vCPUs made before and after the first run of their VM. */
function counting(counts: { early: number; late: number }) {
  const kvm = open(simulator(HOST))
  const observe = (vm: VmFd): VmFd => {
    let hasRun = false
    return altered(vm, {
      createVcpu: (id) => {
        counts[hasRun ? 'late' : 'early']++
        const vcpu = vm.createVcpu(id)
        if (typeof vcpu === 'number') return vcpu
        return altered(vcpu, {
          runSync: (timeout) => {
            const outcome = vcpu.runSync(timeout)
            hasRun = true
            return outcome
          },
        })
      },
    })
  }
  return altered(kvm, {
    createVm: (type) => {
      const vm = kvm.createVm(type)
      return typeof vm === 'number' ? vm : observe(vm)
    },
  })
}

it('makes no vCPU once a VM has run', () => {
  const counts = { early: 0, late: 0 }
  for (const profile of ['everything', 'lifecycle', 'gic'] as const) {
    const found = fuzz(counting(counts), open(simulator(HOST)), { seed: 1, operations: 20_000, profile })
    assert.deepEqual([...found], [])
  }
  assert.ok(counts.early > 100, `only ${counts.early} vCPUs were made`)
  assert.equal(counts.late, 0)
})
