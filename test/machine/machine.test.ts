/** How a machine is set up and ended, on simulated hosts, which execute no guest; test/lab-kernels/machine.test.ts boots Linux. */
import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, test } from 'vitest'
import type { Backend, VmFd } from '../../lib/backend.js'
import { simulator } from '../../lib/hosts/index.js'
import { type Kvm, openKvm, type Vm } from '../../lib/kvm/index.js'
import { bootMachine, type MachineOptions } from '../../lib/machine/index.js'
import { MachineError } from '../../lib/machine/errors.js'
import { errnos } from '../../lib/uapi.js'
import { kernelImage } from './images.js'

const HOST = 'linux-6.12-neoverse-n1'
let kvm: Kvm
const folder = mkdtempSync(join(tmpdir(), 'kvm-arm64-machine-'))
beforeAll(() => (kvm = openKvm(simulator(HOST))))
afterAll(() => {
  kvm.close()
  rmSync(folder, { recursive: true })
})

const options = (more: Partial<MachineOptions> = {}): MachineOptions => ({
  kvm,
  kernel: kernelImage(),
  ...more,
})

function isMachineError(code: string, problem: RegExp): (error: unknown) => boolean {
  return (error) => error instanceof MachineError && error.code === code && problem.test(error.message)
}

describe('a machine', () => {
  test('starts its first vCPU at the kernel, with the device tree, and the others off', async () => {
    let registers: unknown[] = []
    let states: unknown[] = []
    const machine = bootMachine(
      options({
        kernel: kernelImage({ textOffset: 0x8_0000n }),
        smp: 3,
        configure: (vm) => {
          assert.equal(vm.started, false)
          registers = (['pc', 'x0', 'x1', 'x2', 'x3'] as const).map((name) =>
            vm.vcpus[0]!.registers.get(name),
          )
          states = vm.vcpus.map(({ mpState }) => mpState)
        },
      }),
    )
    await machine.close()
    assert.deepEqual(registers, [0x4008_0000n, 0x4020_0000n, 0n, 0n, 0n])
    assert.deepEqual(states, ['runnable', 'stopped', 'stopped'])
    await assert.rejects(machine.ended, /executes no guest code/)
  })

  test('passes on what the guest sends on its serial port, until the guest switches off', async () => {
    const machine = bootMachine(
      options({ kernel: guest(STORE, HVC), smp: 2, configure: sending('A', SYSTEM_OFF) }),
    )
    assert.equal((await machine.console.expect(/[A-Z]/))[0], 'A')
    assert.equal(await machine.ended, 'off')
    assert.equal(machine.console.transcript, 'A')
    await assert.rejects(machine.serial.expect('B'), isMachineError('ERR_MACHINE_ENDED', /ended \(off\)/))
    // Nobody is there to receive it, and nothing breaks.
    machine.console.write('late')
    await machine.close()
    // The KVM it was given stays open.
    kvm.createVm().close()
  })

  test('passes on together what the guest sends without waiting', async () => {
    const prints: string[] = []
    const kernel = kernelImage()
    // Behind the header.
    const start = 64
    for (let index = 0; index < 300; index++) kernel.writeUInt32LE(STORE_BYTE, start + 4 * index)
    kernel.writeUInt32LE(HVC, start + 4 * 300)
    const configure = (vm: Vm) => {
      sending('z', SYSTEM_OFF)(vm)
      vm.vcpus[0]!.registers.set('pc', 0x4000_0000n + BigInt(start))
    }
    const machine = bootMachine(options({ kernel, configure }))
    machine.console.listen((bytes) => prints.push(Buffer.from(bytes).toString()))
    assert.equal(await machine.ended, 'off')
    assert.equal(prints.join(''), 'z'.repeat(300))
    assert.ok(prints.length < 10, `${prints.length} pieces`)
  })

  test('ends with the error of whoever listens', async () => {
    const machine = bootMachine(
      options({ kernel: guest(STORE_BYTE, WAIT), configure: sending('z', SYSTEM_OFF) }),
    )
    machine.console.listen(fail)
    await assert.rejects(machine.ended, /^Error: no$/)
  })

  test('starts again when the guest restarts, on a new VM', async () => {
    const vms: Vm[] = []
    const configure = (vm: Vm) => {
      sending(String(vms.length), vms.length < 2 ? SYSTEM_RESET : SYSTEM_OFF)(vm)
      vms.push(vm)
    }
    const machine = bootMachine(options({ kernel: guest(STORE, HVC), configure }))
    assert.equal(await machine.ended, 'off')
    assert.equal(machine.console.transcript, '012')
    assert.equal(new Set(vms).size, 3)
    assert.equal(machine.vm, vms[2])
  })

  test('ends when the guest restarts, if that is wanted', async () => {
    const configure = sending('x', SYSTEM_RESET)
    const machine = bootMachine(options({ kernel: guest(STORE, HVC), configure, reboot: false }))
    assert.equal(await machine.ended, 'reset')
  })

  test('ends when it is closed, and may be closed again', async () => {
    const machine = bootMachine(options({ kernel: guest(WAIT), smp: 2 }))
    const rejected = assert.rejects(
      machine.console.expect(/never/),
      isMachineError('ERR_MACHINE_ENDED', /ended \(closed\)/),
    )
    await machine.close()
    await machine.close()
    assert.equal(await machine.ended, 'closed')
    await rejected
  })

  test('ends with the error of the guest that cannot go on', async () => {
    const machine = bootMachine(options({ kernel: guest(0xffff_ffff) }))
    await assert.rejects(machine.ended, /executes no guest code/)
  })

  test('passes on what goes wrong in configure, and frees what it holds', () => {
    const disk = join(folder, 'configure.img')
    writeFileSync(disk, new Uint8Array(512))
    for (let count = 0; count < 3; count++) {
      assert.throws(() => bootMachine(options({ disks: [disk], configure: fail })), /^Error: no$/)
    }
  })

  test('refuses a configure that is not done when it returns', () => {
    assert.throws(() => bootMachine(options({ configure: async () => fail() })), {
      name: 'TypeError',
      message: /^configure must be a function that is done when it returns/,
    })
  })

  test('needs memory for kernel and initrd', () => {
    const initrd = new Uint8Array(4 << 20)
    assert.throws(
      () => bootMachine(options({ memory: 6, initrd })),
      isMachineError('ERR_MACHINE_MEMORY', /do not fit into 6 MiB: give the machine more than 8 MiB/),
    )
  })

  test('refuses a command line beyond what Linux maps', () => {
    assert.throws(
      () => bootMachine(options({ append: 'a'.repeat(2 << 20) })),
      isMachineError(
        'ERR_MACHINE_MEMORY',
        /device tree has \d+ bytes, and Linux takes 2097152: shorten append/,
      ),
    )
  })

  test('needs an interrupt controller that this host can make', () => {
    const none = openKvm(withGic(simulator(HOST), () => -errnos.ENODEV))
    assert.throws(
      () => bootMachine(options({ kvm: none })),
      isMachineError('ERR_MACHINE_GIC', /neither a GICv3 nor a GICv2/),
    )
    none.close()
  })

  test('has at most 8 vCPUs where the host can only make a GICv2, which KVM refuses by their number', () => {
    const answers = [-errnos.ENODEV, -errnos.E2BIG]
    const old = openKvm(withGic(simulator(HOST), () => answers.shift()!))
    assert.throws(
      () => bootMachine(options({ kvm: old, smp: 9 })),
      isMachineError('ERR_MACHINE_GIC', /a GICv2, the best this host can make, serves 8 vCPUs, not 9/),
    )
    old.close()
  })

  for (const [what, more, code, problem] of [
    [
      'a kernel',
      { kernel: '/nonexistent/Image' },
      'ERR_MACHINE_FILE',
      /the kernel \/nonexistent\/Image cannot be read: ENOENT/,
    ],
    ['an initrd', { initrd: '/nonexistent/initrd' }, 'ERR_MACHINE_FILE', /the initrd \/nonexistent/],
    [
      'a disk',
      { disks: ['/nonexistent/disk'] },
      'ERR_MACHINE_DISK',
      /the disk \/nonexistent\/disk cannot be opened/,
    ],
    ['a kernel in bytes', { kernel: new Uint8Array(5) }, 'ERR_MACHINE_KERNEL', /5 bytes/],
  ] as const) {
    test(`refuses ${what} that cannot be used`, () => {
      assert.throws(() => bootMachine(options(more)), isMachineError(code, problem))
    })
  }

  test('reads a kernel from a pipe, and no further than it could use', async () => {
    const pipe = join(folder, 'pipe')
    execFileSync('mkfifo', [pipe])
    assert.throws(() => bootMachine(options({ kernel: pipe })), isMachineError('ERR_MACHINE_KERNEL', /Image/))
    const image = join(folder, 'Image')
    writeFileSync(image, guest(WAIT))
    spawn('sh', ['-c', 'cat "$1" > "$2"', 'sh', image, pipe], { stdio: 'ignore' })
    const machine = bootMachine(options({ kernel: pipe }))
    await machine.close()
    assert.throws(
      () => bootMachine(options({ initrd: '/dev/zero', memory: 8 })),
      isMachineError('ERR_MACHINE_MEMORY', /the initrd \/dev\/zero does not fit into 8 MiB/),
    )
  })

  for (const [wrong, error] of [
    [{ smp: 0 }, RangeError],
    [{ smp: 127 }, RangeError],
    [{ memory: 3 }, RangeError],
    [{ memory: '256' }, TypeError],
    [{ kernel: 5 }, TypeError],
    [{ append: 5 }, TypeError],
    [{ console: 'vga' }, RangeError],
    [{ features: ['wings'] }, RangeError],
    [{ features: 'sve' }, TypeError],
    [{ disks: 'disk.img' }, TypeError],
    [{ disks: [5] }, TypeError],
    [{ disks: [{ content: 5 }] }, TypeError],
    [{ disks: [{ content: 'x', readonly: 1 }] }, TypeError],
    [{ disks: Array.from({ length: 31 }, () => 'x') }, RangeError],
    [{ reboot: 1 }, TypeError],
    [{ configure: 1 }, TypeError],
    [{ colour: 'red' }, TypeError],
  ] as const) {
    test(`refuses ${Object.keys(wrong)[0]}: ${String(Object.values(wrong)[0]).slice(0, 20)}`, () => {
      assert.throws(() => bootMachine(options(wrong as never)), error)
    })
  }
})

/** A kernel of these instructions, which are all the simulator executes. */
function guest(...instructions: number[]): Uint8Array {
  const bytes = kernelImage()
  for (const [index, instruction] of instructions.entries()) bytes.writeUInt32LE(instruction, 4 * index)
  return bytes
}
/** `str x2, [x1]` */
const STORE = 0xf900_0022
/** `strb w2, [x1]` */
const STORE_BYTE = 0x3900_0022
/** `hvc #0` */
const HVC = 0xd400_0002
/** `b .` */
const WAIT = 0x1400_0000
const SYSTEM_OFF = 0x8400_0008n
const SYSTEM_RESET = 0x8400_0009n

/** Sets the registers with which a guest of `STORE` and `HVC` sends a letter and makes a call. */
function sending(letter: string, call: bigint): (vm: Vm) => void {
  return ({ vcpus: [vcpu] }) => {
    vcpu!.registers.set('x0', call)
    vcpu!.registers.set('x1', 0x0900_0000n)
    vcpu!.registers.set('x2', BigInt(letter.charCodeAt(0)))
  }
}

function fail(): never {
  throw new Error('no')
}

/** A host that answers so when it is to make a GIC. */
function withGic(backend: Backend, answer: () => number): Backend {
  return {
    ...backend,
    open: () => {
      const system = backend.open()
      assert.ok(typeof system !== 'number')
      return new Proxy(system, {
        get: (target, key) => {
          const member = Reflect.get(target, key) as unknown
          if (key !== 'createVm') return typeof member === 'function' ? member.bind(target) : member
          return (type: bigint) => {
            const vm = target.createVm(type) as VmFd
            vm.createDevice = answer
            return vm
          }
        },
      })
    },
  }
}
