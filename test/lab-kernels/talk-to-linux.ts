/** Runs inside the lab: a root of busybox and modules for a guest, and commands typed in its shell. */
import { readdirSync } from 'node:fs'
import { initramfs, type Machine, type RootEntry } from '../../lib/machine/index.js'

/** Milliseconds; other tests may use the processor as well. */
export const limit = 200_000

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

/** @param modules the directory with the modules, in the order to load them */
export async function linuxRoot(modules: string): Promise<Uint8Array> {
  const entries: Record<string, RootEntry> = { init, 'bin/busybox': { file: '/bin/busybox' } }
  for (const name of readdirSync(modules)) entries[`modules/${name}`] = { file: `${modules}/${name}` }
  return await initramfs(entries)
}

let count = 0

/** Types a command and returns what it prints. */
export async function ask({ console: guest }: Machine, command: string): Promise<string> {
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
