/**
 * Runs inside a real kernel: makes and closes VMs ten thousand times and reads registers a million times, and prints how many
 * descriptors and how much memory this process has at the beginning and at the end of each.
 */
import { readdirSync } from 'node:fs'
import { setImmediate } from 'node:timers/promises'
import { openKvm } from '../../lib/kvm/index.js'

export interface Usage {
  descriptors: number
  /** Resident, bytes. */
  memory: number
}

async function usage(): Promise<Usage> {
  // Finalizers run in turns of the event loop that follow the collection.
  for (let turn = 0; turn < 5; turn++) {
    globalThis.gc!()
    await setImmediate()
  }
  return { descriptors: readdirSync('/proc/self/fd').length, memory: process.memoryUsage.rss() }
}

async function measure(work: () => void, rounds: number): Promise<{ before: Usage; after: Usage }> {
  const repeat = async (times: number): Promise<void> => {
    for (let round = 0; round < times; round++) {
      work()
      if (round % 100 === 0) await setImmediate()
    }
  }
  // What is allocated once, for good, is not a leak: the first rounds are not counted.
  await repeat(rounds / 10)
  const before = await usage()
  await repeat(rounds)
  return { before, after: await usage() }
}

function cycle(): void {
  using kvm = openKvm()
  using vm = kvm.createVm()
  using vcpu = vm.createVcpu(0)
  vcpu.registers.list()
}

using host = openKvm()
using machine = host.createVm()
const { registers } = machine.createVcpu(0)
const result = {
  cycles: await measure(cycle, 10_000),
  reads: await measure(() => void registers.get(0x6030000000160000n), 1_000_000),
}
process.stdout.write(JSON.stringify(result))
