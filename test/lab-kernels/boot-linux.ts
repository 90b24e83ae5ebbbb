/**
 * Runs inside the lab: boots a kernel in a machine, talks to it, restarts it, and prints what was found as JSON.
 * `boot-linux.js IMAGE MODULES VCPUS serial|virtio`
 */
import { readdirSync, writeFileSync } from 'node:fs'
import { bootMachine, initramfs, type RootEntry } from '../../lib/machine/index.js'

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

/** Milliseconds; other tests may use the processor as well. */
const limit = 200_000

const init = `#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /mnt
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
for module in /modules/*.ko; do insmod $module 2>/dev/null; done
# The shell breaks longer lines when it echoes them.
export COLUMNS=500
exec setsid cttyhack sh
`

async function bootLinux(
  image: string,
  modules: string,
  vcpus: number,
  kind: 'serial' | 'virtio',
): Promise<Found> {
  const entries: Record<string, RootEntry> = { init, 'bin/busybox': { file: '/bin/busybox' } }
  for (const name of readdirSync(modules)) entries[`modules/${name}`] = { file: `${modules}/${name}` }
  writeFileSync('disk.img', new Uint8Array(8 << 20))
  const initrd = await initramfs(entries)

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

  /** Types a command and returns what it prints. */
  let count = 0
  const ask = async (command: string): Promise<string> => {
    const end = `end-of-${++count}`
    // The echo of the line does not contain the whole mark.
    guest.write(`${command}; echo end-of''-${count}\n`)
    const [, output] = await guest.expect(new RegExp(`''-${count}\\r?\\n([^]*?)${end}\\r?\\n`), {
      timeout: limit,
    })
    // What is typed before the prompt is echoed twice, by the terminal and by the shell.
    await guest.expect('# ', { timeout: limit })
    return output!.replaceAll('\r', '').trim()
  }

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
