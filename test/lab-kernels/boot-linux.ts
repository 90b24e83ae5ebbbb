/**
 * Runs inside the lab: boots a kernel in a machine, talks to it, restarts it, and prints what was found as JSON.
 * `boot-linux.js IMAGE MODULES VCPUS serial|virtio`
 */
import { writeFileSync } from 'node:fs'
import { bootMachine } from '../../lib/machine/index.js'
import { ask as askMachine, limit, linuxRoot } from './talk-to-linux.js'

/** What the guest said and how long it took. */
export interface Found {
  release: string
  cpus: number
  /** Lines of /proc/interrupts that have counted, of devices of ours. */
  interrupts: string[]
  /** What the guest read from its source of random numbers, twice. */
  random: string[]
  /** The file's content after the guest has restarted. */
  kept: string
  end: string
  /** Milliseconds from the start of the machine until its shell took commands. */
  shell: number
}

async function bootLinux(
  image: string,
  modules: string,
  vcpus: number,
  kind: 'serial' | 'virtio',
): Promise<Found> {
  writeFileSync('disk.img', new Uint8Array(8 << 20))
  const initrd = await linuxRoot(modules)

  const started = performance.now()
  const machine = bootMachine({
    kernel: image,
    initrd,
    smp: vcpus,
    append: 'quiet',
    disks: ['disk.img'],
    console: kind,
  })
  const { console: guest } = machine
  // Only now: the console of Debian's kernels is not there before its module is loaded.
  await guest.expect('# ', { timeout: limit })
  const shell = performance.now() - started

  const ask = async (command: string): Promise<string> => await askMachine(machine, command)
  const release = await ask('uname -r')
  const cpus = Number(await ask('nproc'))
  const read = 'dd if=/dev/hwrng bs=16 count=1 2>/dev/null | hexdump -e \'16/1 "%02x"\''
  const random = [await ask(read), await ask(read)]
  await ask(
    'mke2fs /dev/vda && mount -t ext4 /dev/vda /mnt && echo "written before" >/mnt/file && umount /mnt',
  )
  const interrupts = (await ask('grep -E "ttyS|virtio" /proc/interrupts'))
    .split('\n')
    .filter((line) => / [1-9]\d* /.test(line))
    .map((line) => line.trim().split(/\s+/).at(-1)!)

  guest.write('reboot -f\n')
  await guest.expect('# ', { timeout: limit })
  const kept = await ask('mount -t ext4 /dev/vda /mnt && cat /mnt/file')
  guest.write('poweroff -f\n')
  const end = await machine.ended
  return { release, cpus, interrupts, random, kept, end, shell }
}

const [image, modules, vcpus, kind] = process.argv.slice(2)
try {
  const found = await bootLinux(image!, modules!, Number(vcpus), kind === 'virtio' ? 'virtio' : 'serial')
  process.stdout.write(`${JSON.stringify(found)}\n`)
} catch (error) {
  const { stack, console: last } = error as Error & { console?: string }
  process.stderr.write(`${stack}\n${last ?? ''}\n`)
  process.exit(1)
}
