import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { setTimeout } from 'node:timers/promises'
import type { VcpuFd } from '../../../lib/backend.js'
import { cpuInputs, errnos, exitReasons, irqTypes, packIrq } from '../../../lib/uapi.js'
import { arm64Handles, deviceAddress, memoryAddress, opened, pc, preferredTarget, x } from '../handles.js'

/** Guest code. Registers are set from outside: x1 is where to, x2 what. */
const code = {
  /** str x2, [x1] */
  store: 0xf9000022,
  /** ldr x2, [x1] */
  load: 0xf9400022,
  /** add x2, x2, #1 */
  increment: 0x91000442,
  /** b . */
  loop: 0x14000000,
  /** b .-12 */
  backThree: 0x17fffffd,
  /** b .-8 */
  backTwo: 0x17fffffe,
}

/** Milliseconds: more than a busy machine that emulates the CPU needs to come to an exit, where one is due. */
const generous = 30_000

/** Milliseconds: enough for a few instructions on such a machine, where no exit ends the run. */
const enough = 500

interface MmioExit {
  reason: number
  address: bigint
  data: bigint
  length: number
  isWrite: boolean
}

/** `struct kvm_run`: exit_reason at 8, then from 32 on `mmio { phys_addr, data[8], len, is_write }`. */
function exitOf(vcpu: VcpuFd): MmioExit {
  const run = new DataView(vcpu.runPage)
  return {
    reason: run.getUint32(8, true),
    address: run.getBigUint64(32, true),
    data: run.getBigUint64(40, true),
    length: run.getUint32(48, true),
    isWrite: run.getUint8(52) !== 0,
  }
}

function written(data: bigint): MmioExit {
  return { reason: exitReasons.KVM_EXIT_MMIO, address: deviceAddress, data, length: 8, isWrite: true }
}

/** Keeps this thread, on which promises settle, busy. */
function spin(milliseconds: number): void {
  const end = performance.now() + milliseconds
  while (performance.now() < end);
}

describe('A guest', () => {
  it('runs until it writes to a device, again and again', () => {
    const handles = arm64Handles([code.store, code.increment, code.backTwo])
    const { vcpu } = handles
    assert.equal(vcpu.setOneReg(x(1), deviceAddress), 0)
    assert.equal(vcpu.setOneReg(x(2), 0xfedcba9876543210n), 0)
    for (let i = 0n; i < 100n; i++) {
      assert.equal(vcpu.runSync(0), 0)
      assert.deepEqual(exitOf(vcpu), written(0xfedcba9876543210n + i))
    }
    handles.close()
  })

  it('runs on a thread of its own until it writes to a device, again and again', async () => {
    const handles = arm64Handles([code.store, code.increment, code.backTwo])
    const { vcpu } = handles
    assert.equal(vcpu.setOneReg(x(1), deviceAddress), 0)
    for (let i = 0n; i < 100n; i++) {
      assert.equal(await vcpu.run(), 0)
      assert.deepEqual(exitOf(vcpu), written(i))
      if (i % 10n === 5n) vcpu.kick()
    }
    assert.equal(vcpu.runSync(generous), 0)
    assert.deepEqual(exitOf(vcpu), written(100n))
    handles.close()
  })

  it('reads from a device what kvm_run is given', () => {
    const handles = arm64Handles([code.load, code.loop])
    const { vcpu } = handles
    assert.equal(vcpu.setOneReg(x(1), deviceAddress), 0)
    assert.equal(vcpu.runSync(0), 0)
    const exit = exitOf(vcpu)
    assert.deepEqual({ ...exit, data: 0n }, { ...written(0n), isWrite: false })
    new DataView(vcpu.runPage).setBigUint64(40, 0x0123456789abcdefn, true)
    assert.equal(vcpu.runSync(enough), -errnos.EINTR)
    assert.equal(vcpu.getOneReg(x(2)), 0x0123456789abcdefn)
    assert.equal(vcpu.getOneReg(pc), handles.entry + 4n)
    handles.close()
  })

  it('shares its memory with the script', () => {
    const handles = arm64Handles([code.store, code.loop])
    const { vcpu, memory } = handles
    assert.equal(vcpu.setOneReg(x(1), memoryAddress + 0x8000n), 0)
    assert.equal(vcpu.setOneReg(x(2), 0x1122334455667788n), 0)
    assert.equal(vcpu.runSync(enough), -errnos.EINTR)
    assert.equal(new DataView(memory.buffer!).getBigUint64(0x8000, true), 0x1122334455667788n)
    const copy = new Uint8Array(8)
    assert.equal(memory.read(0x8000, copy), 0)
    assert.deepEqual([...copy], [0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11])
    handles.close()
  })

  it('runs on in memory whose handle, VM and all have been closed', () => {
    const handles = arm64Handles([code.store, code.increment, code.backTwo])
    const { system, vm, vcpu, memory } = handles
    assert.equal(vcpu.setOneReg(x(1), deviceAddress), 0)
    memory.close()
    vm.close()
    system.close()
    for (let i = 0n; i < 5n; i++) {
      assert.equal(vcpu.runSync(generous), 0)
      assert.deepEqual(exitOf(vcpu), written(i))
    }
    handles.close()
  })

  it('is found where it was when it is interrupted', async () => {
    const handles = arm64Handles([code.loop])
    const { vcpu } = handles
    const run = vcpu.run()
    await setTimeout(20)
    vcpu.kick()
    assert.equal(await run, -errnos.EINTR)
    assert.equal(new DataView(vcpu.runPage).getUint32(8, true), exitReasons.KVM_EXIT_INTR)
    assert.equal(vcpu.getOneReg(pc), handles.entry)
    handles.close()
  })

  it('does not move where immediate_exit is set', () => {
    const handles = arm64Handles([code.store, code.increment, code.backTwo])
    const { vcpu } = handles
    assert.equal(vcpu.setOneReg(x(1), deviceAddress), 0)
    const page = new Uint8Array(vcpu.runPage)
    page[1] = 1
    assert.equal(vcpu.runSync(0), -errnos.EINTR)
    assert.equal(vcpu.runSync(generous), -errnos.EINTR)
    assert.equal(vcpu.getOneReg(pc), handles.entry)
    page[1] = 0
    assert.equal(vcpu.runSync(generous), 0)
    assert.deepEqual(exitOf(vcpu), written(0n))
    handles.close()
  })

  it('that has exited when it is kicked ends its next run instead', async () => {
    const handles = arm64Handles([code.store, code.increment, code.backTwo])
    const { vcpu } = handles
    assert.equal(vcpu.setOneReg(x(1), deviceAddress), 0)
    const next: readonly (() => number | Promise<number>)[] = [
      () => vcpu.run(),
      () => vcpu.runSync(0),
      () => vcpu.runSync(generous),
    ]
    for (const [round, run] of next.entries()) {
      const flight = vcpu.run()
      spin(100)
      vcpu.kick()
      vcpu.kick()
      assert.equal(await flight, 0)
      assert.deepEqual(exitOf(vcpu), written(2n * BigInt(round)))
      assert.equal(new Uint8Array(vcpu.runPage)[1], 0)
      // A run that the script itself ends does not count.
      const page = new Uint8Array(vcpu.runPage)
      page[1] = 1
      assert.equal(vcpu.runSync(0), -errnos.EINTR)
      assert.equal(await vcpu.run(), -errnos.EINTR)
      page[1] = 0
      assert.equal(await run(), -errnos.EINTR)
      assert.equal(page[1], 0)
      assert.equal(vcpu.runSync(generous), 0)
      assert.deepEqual(exitOf(vcpu), written(2n * BigInt(round) + 1n))
    }
    handles.close()
  })

  it('is interrupted once for each run that is kicked, at whatever moment', async () => {
    const handles = arm64Handles([code.store, code.increment, code.backTwo])
    const { vcpu } = handles
    assert.equal(vcpu.setOneReg(x(1), deviceAddress), 0)
    const results = { exits: 0, interrupts: 0 }
    for (let round = 0; round < 300; round++) {
      const flight = vcpu.run()
      spin((round % 30) / 20)
      vcpu.kick()
      const first = await flight
      if (first === 0) {
        results.exits++
        assert.equal(await vcpu.run(), -errnos.EINTR)
      } else {
        assert.equal(first, -errnos.EINTR)
        results.interrupts++
      }
      assert.equal(await vcpu.run(), 0)
    }
    assert.ok(results.exits > 0 && results.interrupts > 0, JSON.stringify(results))
    handles.close()
  })

  it('with two vCPUs runs both at once', async () => {
    // Each waits for the other's flag: neither gets on unless both run.
    const program = [
      0xf9000022, // str x2, [x1]      own flag
      0xf9400064, // ldr x4, [x3]      the other's
      0xb4ffffe4, // cbz x4, .-4
      0xf90000a4, // str x4, [x5]      to the device
      code.loop,
    ]
    const handles = arm64Handles(program)
    const { vm, vcpu } = handles
    const second = opened(vm.createVcpu(1))
    assert.equal(second.init(preferredTarget(vm), [4]), 0)
    assert.equal(second.setOneReg(pc, handles.entry), 0)
    const flags = [memoryAddress + 0x8000n, memoryAddress + 0x9000n] as const
    for (const [n, each] of [vcpu, second].entries()) {
      assert.equal(each.setOneReg(x(1), flags[n]!), 0)
      assert.equal(each.setOneReg(x(2), BigInt(n + 1)), 0)
      assert.equal(each.setOneReg(x(3), flags[1 - n]!), 0)
      assert.equal(each.setOneReg(x(5), deviceAddress), 0)
    }
    assert.deepEqual(await Promise.all([vcpu.run(), second.run()]), [0, 0])
    assert.deepEqual([exitOf(vcpu), exitOf(second)], [written(2n), written(1n)])
    second.close()
    handles.close()
  })

  it('goes on after a write that is posted, on a thread and on this one', async () => {
    const handles = arm64Handles([code.store, code.increment, code.backTwo])
    const { vm, vcpu } = handles
    const entries = new BigUint64Array(3 * 100)
    assert.equal(vcpu.setOneReg(x(1), deviceAddress), 0)
    assert.equal(vm.addPosted(deviceAddress - 8n, 24, 7), 0)
    assert.equal(vm.addPosted(deviceAddress, 1, 8), -errnos.EEXIST)
    let next = 0n
    const take = (): void => {
      for (let taken = 100; taken === 100;) {
        taken = vm.takePosted(entries)
        for (let entry = 0; entry < taken; entry++) {
          assert.deepEqual(
            [...entries.subarray(3 * entry, 3 * entry + 3)],
            [7n | (8n << 32n), deviceAddress, next],
          )
          next++
        }
      }
    }
    vcpu.onPosted = () => {
      take()
      if (next > 3000n) vcpu.kick()
    }
    // Ends by a kick, or where the log was full.
    for (let result = 0; next <= 3000n; take()) {
      result = await vcpu.run()
      assert.ok(result === 0 || result === -errnos.EINTR)
      if (result === 0 && next <= 3000n) {
        take()
        assert.deepEqual(exitOf(vcpu), written(next))
        next++
      }
    }
    vcpu.onPosted = undefined
    const before = next
    const result = vcpu.runSync(enough)
    take()
    assert.ok(next > before)
    if (result === 0) assert.deepEqual(exitOf(vcpu), written(next++))
    assert.equal(vm.removePosted(deviceAddress), -errnos.ENOENT)
    assert.equal(vm.removePosted(deviceAddress - 8n), 0)
    // A kick that came late is due.
    if (vcpu.runSync(generous) === -errnos.EINTR) assert.equal(vcpu.runSync(generous), 0)
    assert.deepEqual(exitOf(vcpu), written(next))
    handles.close()
  })

  it('finds the constant that a register was given, and a change of it', async () => {
    // Until bit 0 is set, then to the device.
    const program = [
      0xb9400022, // ldr w2, [x1]
      0x3607ffe2, // tbz w2, #0, .-4
      0xf9000062, // str x2, [x3]
      code.loop,
    ]
    const handles = arm64Handles(program)
    const { vm, vcpu } = handles
    assert.equal(vcpu.setOneReg(x(1), deviceAddress + 4n), 0)
    assert.equal(vcpu.setOneReg(x(3), deviceAddress), 0)
    assert.equal(vm.setConstant(deviceAddress, 8, 0xfedc_ba98_7654_3210n), 0)
    const flight = vcpu.run()
    await setTimeout(20)
    assert.equal(vm.setConstant(deviceAddress, 8, 0xfedc_ba99_7654_3210n), 0)
    assert.equal(await flight, 0)
    assert.deepEqual(exitOf(vcpu), written(0xfedc_ba99n))
    assert.equal(vcpu.setOneReg(pc, handles.entry - 4n), 0)
    assert.equal(vm.removeConstant(deviceAddress), 0)
    assert.equal(vcpu.runSync(generous), 0)
    assert.equal(exitOf(vcpu).isWrite, false)
    handles.close()
  })

  it('that waits for an interrupt goes on when an input of its vCPU is raised, while it runs', async () => {
    const wfi = 0xd503207f
    const handles = arm64Handles([wfi, code.store, code.increment, code.backThree])
    const { vm, vcpu } = handles
    assert.equal(vcpu.setOneReg(x(1), deviceAddress), 0)
    for (const [round, number] of [cpuInputs.irq, cpuInputs.fiq, cpuInputs.irq].entries()) {
      const irq = packIrq({ type: irqTypes.cpu, vcpu: 0, number })
      const flight = vcpu.run()
      await setTimeout(20)
      assert.equal(vm.irqLine(irq, 1), 0)
      assert.equal(await flight, 0)
      assert.deepEqual(exitOf(vcpu), written(BigInt(round)))
      assert.equal(vm.irqLine(irq, 0), 0)
    }
    assert.equal(vcpu.runSync(enough), -errnos.EINTR)
    handles.close()
  })

  it('does not start before its vCPU is initialised, or without KVM_CREATE_VCPU’s descriptor', async () => {
    const handles = arm64Handles()
    const vcpu = opened(handles.vm.createVcpu(1))
    assert.equal(vcpu.runSync(0), -errnos.ENOEXEC)
    assert.equal(await vcpu.run(), -errnos.ENOEXEC)
    vcpu.close()
    handles.close()
  })
})
