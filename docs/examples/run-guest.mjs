// Runs two guest instructions: the first stores a word to a device, and handles the exit.
// `node run-guest.mjs real` uses /dev/kvm of this machine; without the word a simulated host answers.
import { openKvm, simulator } from 'kvm-arm64'

const kvm = process.argv[2] === 'real' ? openKvm() : openKvm(simulator('linux-6.12-neoverse-n1'))
const vm = kvm.createVm()
const vcpu = vm.createVcpu(0, { features: ['psci-0.2'] })

// 64 KiB of guest memory at 1 GiB. What lies outside every slot is a device.
const memory = kvm.createMemory(0x10000)
vm.mapMemory(0, { address: 0x4000_0000n, memory })
const code = new Uint32Array([
  0xf900_0022, // str x2, [x1]
  0x1400_0000, // b .
])
memory.write(0, new Uint8Array(code.buffer))
vcpu.registers.set('pc', 0x4000_0000n)
vcpu.registers.set('x1', 0x0900_0000n)
vcpu.registers.set('x2', 0x48n)

const exit = await vcpu.run()
if (exit.reason === 'mmio' && exit.write) {
  console.log(exit.address.toString(16), exit.data) // 9000000 72n
}

// The guest goes on to wait for ever; kick() ends a run from outside.
const waiting = vcpu.run()
vcpu.kick()
console.log((await waiting).reason) // interrupted

vm.close()
memory.close()
kvm.close()
