/**
 * The work of `kvm.c` through the backend: one register again and again, the whole register list in one call, and runs of
 * a guest that does nothing but write to a device. And what a single get consists of, through the addon that `parts.c` is and whose
 * file is the argument. Prints nanoseconds per operation, the best of several rounds, as JSON.
 */
import assert from 'node:assert/strict'
import { createRequire } from 'node:module'
import { resolve } from 'node:path'
import { kernelBackend } from '../../lib/kernel/backend.js'
import { exitReasons, vcpuFeatures } from '../../lib/uapi.js'

/** Many and short, so that one of them is undisturbed. */
const rounds = 300
const gets = 100
const lists = 1
const exits = 50

const code = 0x10000n
const device = 0x9000000n
const x1 = 0x6030000000100002n
const pc = 0x6030000000100040n
const stdBmap = 0x6030000000160000n
/** again: str w0, [x1]; add x0, x0, #1; b again */
const program = new Uint32Array([0xb9000020, 0x91000400, 0x17fffffe])

function opened<T>(answer: T | number): T {
  assert.ok(typeof answer !== 'number', `answered ${answer as number}`)
  return answer
}

const system = opened(kernelBackend.open())
const vm = opened(system.createVm(0n))
const vcpu = opened(vm.createVcpu(0))
const init = new Uint32Array(8)
assert.equal(vm.getPreferredTarget(init), 0)
assert.equal(vcpu.init(init[0]!, [1 << vcpuFeatures['psci-0.2']]), 0)
const memory = opened(system.createMemory(65536))
assert.equal(memory.write(0, new Uint8Array(program.buffer)), 0)
assert.equal(vm.setUserMemoryRegion({ slot: 0, flags: 0, address: code, memory, offset: 0, size: 65536 }), 0)
assert.equal(vcpu.setOneReg(pc, code), 0)
assert.equal(vcpu.setOneReg(x1, device), 0)

const list = new BigUint64Array(8193)
list[0] = 8192n
assert.equal(vcpu.getRegList(list), 0)
const ids = list.slice(1, 1 + Number(list[0])).filter((id) => ((id >> 52n) & 0xfn) <= 3n)
const values = new BigUint64Array(ids.length)
const errnos = new Int32Array(ids.length)
const run = new DataView(vcpu.runPage)

function single(): void {
  for (let i = 0; i < gets; i++) vcpu.getOneReg(stdBmap)
}

const parts = createRequire(import.meta.url)(resolve(process.argv[2]!)) as {
  empty(): undefined
  echo(number: bigint): bigint
  get(id: bigint): bigint
}

function empty(): void {
  for (let i = 0; i < gets; i++) parts.empty()
}

function echo(): void {
  for (let i = 0; i < gets; i++) parts.echo(stdBmap)
}

function together(): void {
  for (let i = 0; i < gets; i++) parts.get(stdBmap)
}

function batch(): void {
  for (let i = 0; i < lists; i++) {
    if (vcpu.getRegs(ids, values, errnos) !== 0) assert.fail('KVM_GET_ONE_REG failed')
  }
}

function mmio(): void {
  for (let i = 0; i < exits; i++) {
    if (vcpu.runSync(0) !== 0) assert.fail('KVM_RUN failed')
    const address = run.getBigUint64(32, true)
    if (run.getUint32(8, true) !== exitReasons.KVM_EXIT_MMIO || address !== device)
      assert.fail('no MMIO exit')
  }
}

/** The same writes, posted: nanoseconds for one, the best of several rounds. */
async function posted(): Promise<number> {
  const entries = new BigUint64Array(3 * 4096)
  assert.equal(vm.addPosted(device, 4, 0), 0)
  let shortest = Infinity
  for (let i = 0; i < rounds / 10; i++) {
    let taken = 0
    vcpu.onPosted = () => {
      taken += vm.takePosted(entries)
      if (taken >= 20 * exits) vcpu.kick()
    }
    const start = performance.now()
    await vcpu.run()
    taken += vm.takePosted(entries)
    shortest = Math.min(shortest, (performance.now() - start) / taken)
  }
  vcpu.onPosted = undefined
  assert.equal(vm.removePosted(device), 0)
  // A kick that came late is due.
  if (vcpu.runSync(0) !== 0) vcpu.runSync(0)
  return Math.round(shortest * 1e6)
}

/** Each exit handed over to this thread. */
async function handedOver(): Promise<number> {
  let shortest = Infinity
  for (let i = 0; i < rounds; i++) {
    const start = performance.now()
    for (let exit = 0; exit < exits; exit++) {
      if ((await vcpu.run()) !== 0) assert.fail('KVM_RUN failed')
    }
    shortest = Math.min(shortest, performance.now() - start)
  }
  return Math.round((shortest * 1e6) / exits)
}

function best(work: () => void, operations: number): number {
  let shortest = Infinity
  for (let i = 0; i < rounds; i++) {
    const start = performance.now()
    work()
    shortest = Math.min(shortest, performance.now() - start)
  }
  return Math.round((shortest * 1e6) / operations)
}

assert.equal(typeof vcpu.getOneReg(stdBmap), 'bigint')
assert.equal(parts.echo(stdBmap), stdBmap)
assert.equal(parts.get(stdBmap), vcpu.getOneReg(stdBmap))
const result = {
  get: best(single, gets),
  empty: best(empty, gets),
  echo: best(echo, gets),
  together: best(together, gets),
  batch: best(batch, lists * ids.length),
  exit: best(mmio, exits),
  handedOver: await handedOver(),
  posted: await posted(),
}
console.log(JSON.stringify(result))
