import { availableParallelism } from 'node:os'
import type { Profile } from '../../lib/fuzz/index.js'
import { bootLab, type BootOptions, type Lab, type RunResult } from '../../lib/lab/index.js'

/** The real kernels everything is proven on. */
export const kernels: readonly string[] = ['5.10', '6.1', '6.12', '6.18', '7.2']

/** CPUs of QEMU 7.2 they run on: with SSBS and without AArch32, an old one with AArch32, and every feature there is. */
export const cpus: readonly string[] = ['neoverse-n1', 'cortex-a57', 'max']

/** What decides which host the lab boots. */
export interface LabMachine extends Pick<BootOptions, 'gic' | 'append' | 'qemu'> {
  kernel: string
  cpu: string
}

export interface RecordedHost extends LabMachine {
  name: string
}

/** The built-in hosts of every kernel and CPU; fleets and moves are tried with all of them. */
export const recordedHosts: readonly RecordedHost[] = kernels.flatMap((kernel) =>
  cpus.map((cpu) => ({ name: `linux-${kernel}-${cpu}`, kernel, cpu })),
)

const qemu = '11.1'

/** Machines of today's servers, and those on which KVM has less or does more than on the others. */
const otherMachines: readonly (Omit<LabMachine, 'kernel'> & { name: string; kernels: readonly string[] })[] =
  [
    { name: 'a64fx', cpu: 'a64fx', kernels: ['6.12', '7.2'] },
    { name: 'neoverse-v1', cpu: 'neoverse-v1', qemu, kernels: ['6.12', '7.2'] },
    { name: 'neoverse-n2', cpu: 'neoverse-n2', qemu, kernels: ['6.12', '7.2'] },
    { name: 'max-qemu-11', cpu: 'max', qemu, kernels: ['6.12', '7.2'] },
    { name: 'cortex-a57-gicv2', cpu: 'cortex-a57', gic: '2', kernels: ['6.12'] },
    { name: 'neoverse-n1-pkvm', cpu: 'neoverse-n1', append: 'kvm-arm.mode=protected', kernels: ['6.18'] },
  ]

/** The built-in hosts recorded from them. */
export const otherHosts: readonly RecordedHost[] = otherMachines.flatMap(
  ({ name, kernels: recorded, ...machine }) =>
    recorded.map((kernel) => Object.assign({ name: `linux-${kernel}-${name}`, kernel }, machine)),
)

export const labHosts: readonly RecordedHost[] = [...recordedHosts, ...otherHosts]

export function recordedHost(name: string): RecordedHost {
  const host = labHosts.find((one) => one.name === name)
  if (host === undefined) throw new Error(`${name} is none of the recorded hosts`)
  return host
}

/**
 * Boots a host with what was compiled here in the working directory, tests included. Reports tell the number of CPUs, so it is always
 * the same.
 */
export async function bootWithTests({ kernel, cpu, qemu: version, gic, append }: LabMachine): Promise<Lab> {
  const lab = await bootLab({
    kernel,
    cpu,
    smp: 2,
    memory: 1024,
    copy: ['dist', 'prebuilds', 'package.json', 'lib/hosts/recorded'],
    timeout: 600,
    ...(version !== undefined && { qemu: version }),
    ...(gic !== undefined && { gic }),
    ...(append !== undefined && { append }),
  })
  await interpretOnly(lab)
  return lab
}

/**
 * Node.js inside compiles nothing, for two reasons. Under emulation code is used too seldom to be worth compiling: a probe, the fuzzer
 * and the conformance suite take 40 to 50 % less processor time interpreted. And with every feature of QEMU 7.2's CPU `max`, V8 fails
 * now and then in code it has compiled, and the process dies of it (not seen on other CPUs, nor known why).
 */
export async function interpretOnly(lab: Lab): Promise<void> {
  const wrapper = `printf '#!/bin/sh\nexec /bin/node --jitless "$@"\n' >/usr/local/bin/node`
  await runInside(lab, 'sh', '-c', `${wrapper} && chmod +x /usr/local/bin/node`)
}

/** Does some work on each of the hosts named, or on all; as many at once as there are processors. */
export async function onRecordedHosts(
  names: readonly string[],
  work: (lab: Lab, host: RecordedHost) => Promise<void>,
): Promise<void> {
  const waiting = names.length === 0 ? [...labHosts] : names.map(recordedHost)
  const workOff = async (): Promise<void> => {
    for (let host = waiting.shift(); host !== undefined; host = waiting.shift()) {
      await using lab = await bootWithTests(host)
      await work(lab, host)
    }
  }
  await Promise.all(Array.from({ length: availableParallelism() }, workOff))
}

/** Runs a compiled file of this project inside; throws with what it said when it fails. */
export async function runInside(lab: Lab, ...command: string[]): Promise<RunResult> {
  const result = await lab.run(command)
  if (result.status !== 0) {
    throw new Error(
      `${command.join(' ')} ended with ${result.status}\n${String(result.stdout)}\n${String(result.stderr)}`,
    )
  }
  return result
}

/** The kernel's log: what is safe on a production host leaves no line in it. */
export async function logOf(lab: Lab): Promise<string[]> {
  const { stdout } = await runInside(lab, 'dmesg')
  return stdout.toString().split('\n')
}

/** Puts invented calls to the kernel inside and to a built-in host. */
export function fuzzCommand(
  host: string,
  operations: number | string,
  seed: number | string,
  profile: Profile = 'everything',
): string[] {
  return [
    'kvm-arm64',
    'trace',
    'fuzz',
    '--against',
    host,
    '--ops',
    String(operations),
    '--seed',
    String(seed),
    '--profile',
    profile,
  ]
}
