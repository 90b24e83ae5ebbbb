// Boots a real Linux 6.12 with KVM under QEMU, on any machine, and runs a command in it. `kvm-arm64 lab setup` comes first.
import { bootLab } from 'kvm-arm64/lab'

const lab = await bootLab({ kernel: '6.12' })
const { status, stdout } = await lab.run(['sh', '-c', 'uname -m && test -c /dev/kvm && echo KVM'])
console.log(status, stdout.toString().trim().replace('\n', ' ')) // 0 aarch64 KVM
await lab.close()
