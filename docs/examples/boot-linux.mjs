// Boots an arm64 kernel on this machine's KVM, types a command and reads its answer: `node boot-linux.mjs Image`.
// Without arm64 KVM: `npx kvm-arm64 lab run --copy Image -- node boot-linux.mjs Image`.
import { bootMachine, initramfs } from 'kvm-arm64/machine'

const init = `#!/bin/busybox sh
mount -t proc proc /proc
mount -t devtmpfs devtmpfs /dev
exec setsid cttyhack sh
`
const applets = ['sh', 'mount', 'setsid', 'cttyhack', 'nproc', 'poweroff']
const initrd = await initramfs({
  init,
  'proc/': '',
  'dev/': '',
  'bin/busybox': { file: '/bin/busybox' }, // a static one for arm64; the lab has it
  ...Object.fromEntries(applets.map((name) => [`bin/${name}`, { link: 'busybox' }])),
})

const machine = bootMachine({ kernel: process.argv[2], initrd, append: 'quiet', smp: 2 })
await machine.console.expect('# ')
machine.console.write('nproc\n')
const [, cpus] = await machine.console.expect(/^(\d+)\s*$/m)
console.log('CPUs of the guest:', cpus) // CPUs of the guest: 2
machine.console.write('poweroff -f\n')
console.log(await machine.ended) // off
