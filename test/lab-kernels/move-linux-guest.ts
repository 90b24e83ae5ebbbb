/** A Linux guest inside the lab that counts, writes and keeps time, for programs that move it. */
import { existsSync, writeFileSync } from 'node:fs'
import { type Baseline, readBaseline } from '../../lib/fleet/baseline/format.js'
import { type Kvm } from '../../lib/kvm/index.js'
import { bootMachine, type Machine } from '../../lib/machine/index.js'
import { machineOf } from '../../lib/migration/machine-facts.js'
import { CNTFRQ_EL0 } from '../../lib/report/machine.js'
import { ask, limit, linuxRoot } from './talk-to-linux.js'

/** What the guest says of itself at one moment. */
export interface Look {
  /** What it has counted to. */
  count: number
  /** The digest of a file in its memory. */
  digest: string
  /** A file on its disk. */
  kept: string
  cpus: number
}

/** For whoever waits, on standard error. */
export function progress(what: string): void {
  process.stderr.write(`${(performance.now() / 1000).toFixed(1)} s: ${what}\n`)
}

/** What the hosts of a way have in common, if it is elected. */
export function elected(): { baseline?: Baseline } {
  return existsSync('baseline.json') ? { baseline: readBaseline('baseline.json') } : {}
}

export async function bootGuest(kvm: Kvm, image: string, modules: string, vcpus: number): Promise<Machine> {
  writeFileSync('disk.img', new Uint8Array(8 << 20))
  const initrd = await linuxRoot(modules)
  const disks = ['disk.img']
  const guest = bootMachine({
    kvm,
    kernel: image,
    initrd,
    smp: vcpus,
    memory: 192,
    append: 'quiet',
    disks,
    ...elected(),
  })
  await guest.console.expect('# ', { timeout: limit })
  progress('the guest has booted')
  await ask(guest, 'mke2fs /dev/vda && mount -t ext4 /dev/vda /mnt && echo before >/mnt/file')
  await ask(guest, 'mkdir /t && mount -t tmpfs t /t && dd if=/dev/urandom of=/t/data bs=64k count=16')
  await ask(
    guest,
    '(i=0; while :; do i=$((i+1)); echo $i >/t/n; mv /t/n /t/count; sleep 0.1; done) & sleep 1',
  )
  return guest
}

export async function lookAt(machine: Machine): Promise<Look> {
  return {
    count: Number(await ask(machine, 'cat /t/count')),
    digest: await ask(machine, 'md5sum </t/data'),
    kept: await ask(machine, 'cat /mnt/file'),
    cpus: Number(await ask(machine, 'nproc')),
  }
}

/** The guest's counter and the host's clock (milliseconds) at one moment. */
export async function clockOf(machine: Machine): Promise<{ guest: bigint; host: number }> {
  await machine.pause()
  const clocks = {
    guest: machine.vm.vcpus[0]!.registers.get('KVM_REG_ARM_TIMER_CNT'),
    host: performance.now(),
  }
  machine.resume()
  return clocks
}

export function ticksPerMs(kvm: Kvm): number {
  const { guestReads = [] } = machineOf(kvm)
  return Number(guestReads.find(({ id }) => BigInt(id) === CNTFRQ_EL0)!.value) / 1000
}
