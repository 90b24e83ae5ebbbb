import assert from 'node:assert/strict'
import { basename } from 'node:path'
import { afterAll, beforeAll, describe, it } from 'vitest'
import { computeBaseline } from '../../lib/fleet/baseline/baseline.js'
import { captureHost } from '../../lib/migration/capture.js'
import { baselineConfiguration } from '../../lib/interchange/baseline.js'
import { guestConfiguration } from '../../lib/interchange/configuration.js'
import { qemuCpuOption } from '../../lib/interchange/qemu.js'
import { attemptRestore } from '../../lib/migration/attempt.js'
import { reactionTo } from '../../lib/migration/restore.js'
import { vmmRules } from '../../lib/migration/vmm/names.js'
import type { PsciVersion } from '../../lib/hypercalls/index.js'
import { openKvm } from '../../lib/kvm/index.js'
import { bootLab, type Lab } from '../../lib/lab/index.js'
import { idFromParts, registerName, systemRegisterId } from '../../lib/registers/index.js'
import { builtInReport, simulator } from '../../lib/hosts/index.js'
import type { VcpuFeature } from '../../lib/uapi.js'
import type { DriveResult } from './qemu-drive.js'
import { type JudgedQemu, qemuDirectory, qemuSuites } from './qemu-packages.js'

/** On the way from each to each a register is gone, new, or of another default. */
const kernels = ['6.1', '6.12', '7.2'] as const
const qemus = Object.keys(qemuSuites) as JudgedQemu[]
/** What `-cpu host` has on this CPU. */
const features: VcpuFeature[] = ['psci-0.2', 'pmu-v3']

const host = (kernel: string): string => `linux-${kernel}-neoverse-n1`
const pairs = kernels.flatMap((from) =>
  kernels.filter((to) => to !== from).map((to): [string, string] => [from, to]),
)

/** Names of the registers that end the move, as foreseen from the recorded hosts. */
function foreseen(from: string, to: string, qemu: JudgedQemu, psci?: Exclude<PsciVersion, '0.1'>): string[] {
  using source = openKvm(simulator(host(from)))
  using destination = openKvm(simulator(host(to)))
  const rules = vmmRules(qemu)
  const state = captureHost(source, { features, ...(psci && { psci }) })
  using attempt = attemptRestore(destination, state, { carries: (id) => rules.carries(id) })
  assert.deepEqual(attempt.refusals, [])
  return attempt.outcomes
    .filter((outcome) => reactionTo(outcome, rules) === 'fails')
    .map(({ name }) => name)
    .toSorted((a, b) => (a < b ? -1 : 1))
}

/** The registers QEMU 11.1 blames for the failure. */
function blamed(complaints: string): string[] {
  const names = complaints.split('\n').flatMap((line) => {
    const name =
      /only_in_incoming_stream: (.*) in the incoming stream but unknown on the destination: fail migration/.exec(
        line,
      ) ?? /Could not set register (.*) to [0-9a-f]+ \(is/.exec(line)
    return name === null ? [] : [registerName(idOf(name[1]!))]
  })
  return [...new Set(names)].toSorted((a, b) => (a < b ? -1 : 1))
}

/** QEMU calls registers by their encoding. */
function idOf(name: string): bigint {
  const demux = /^demuxed reg ([0-9a-f]+)$/.exec(name)
  if (demux) return BigInt(`0x${demux[1]}`)
  const firmware = /^fw (feat )?reg (\d+)$/.exec(name)
  if (firmware) {
    return idFromParts({
      arch: 6,
      size: 3,
      coproc: firmware[1] ? 0x16 : 0x14,
      index: Number(firmware[2]),
      stray: 0n,
    })
  }
  const encoding = /^system register op0:(\d+) op1:(\d+) crn:(\d+) crm:(\d+) op2:(\d+)$/.exec(name)
  assert.ok(encoding, `QEMU names a register ${JSON.stringify(name)}`)
  const [op0, op1, crn, crm, op2] = encoding.slice(1).map(Number) as [number, number, number, number, number]
  return systemRegisterId({ op0, op1, crn, crm, op2 })
}

async function driveIn(lab: Lab, directory: string, ...args: string[]): Promise<DriveResult> {
  const command = ['node', 'dist/test/lab-kernels/qemu-drive.js', `./${basename(directory)}`, ...args]
  const { status, stdout, stderr } = await lab.run(command, { timeout: 300 })
  assert.equal(status, 0, String(stderr))
  return JSON.parse(String(stdout)) as DriveResult
}

/** A lab with QEMUs in it. */
function bootWith(directories: Iterable<string>, kernel: string, cpu: string): Promise<Lab> {
  const copy = ['package.json', 'dist/test/lab-kernels/qemu-drive.js', ...directories]
  return bootLab({ kernel, cpu, smp: 2, memory: 2048, copy, timeout: 600 })
}

describe('QEMU, moving a VM between real kernels', { timeout: 20 * 60 * 1000 }, () => {
  const labs = new Map<string, Lab>()
  const directories = new Map<JudgedQemu, string>()
  const streams = new Map<string, Buffer>()
  const defaults = 'host'
  const option = qemuCpuOption(
    baselineConfiguration(
      computeBaseline(
        kernels.map((kernel) => ({ name: kernel, report: builtInReport(host(kernel)) })),
        { features },
      ),
    ),
    '11.1',
  )
  const pinned = /^-cpu (.*)\n$/.exec(option.text)![1]!

  const drive = (kernel: string, qemu: JudgedQemu, ...args: string[]): Promise<DriveResult> =>
    driveIn(labs.get(kernel)!, directories.get(qemu)!, ...args)

  const save = async (kernel: string, qemu: JudgedQemu, cpu: string): Promise<void> => {
    const result = await drive(kernel, qemu, 'save', '/lab/stream', cpu)
    assert.deepEqual(result, { status: 'completed', complaints: '' }, `saving on ${kernel} with ${qemu}`)
    const { stdout } = await labs.get(kernel)!.run(['cat', '/lab/stream'])
    assert.ok(stdout.length > 100_000)
    streams.set([kernel, qemu, cpu].join(), stdout)
  }

  const restore = async (from: string, to: string, qemu: JudgedQemu, cpu: string): Promise<DriveResult> => {
    const stdin = streams.get([from, qemu, cpu].join())
    assert.ok(stdin, 'nothing was saved')
    await labs.get(to)!.run(['sh', '-c', 'cat >/lab/stream'], { stdin })
    return await drive(to, qemu, 'restore', '/lab/stream', cpu)
  }

  beforeAll(async () => {
    for (const qemu of qemus) directories.set(qemu, await qemuDirectory(qemu))
    for (const kernel of kernels) {
      labs.set(kernel, await bootWith(directories.values(), kernel, 'neoverse-n1'))
      for (const qemu of qemus) await save(kernel, qemu, defaults)
      await save(kernel, 'qemu@11.1', pinned)
    }
  })
  afterAll(async () => {
    for (const lab of labs.values()) await lab.close()
  })

  for (const qemu of qemus) {
    for (const [from, to] of pairs) {
      const stoppedBy = foreseen(from, to, qemu)
      it(`${qemu} ${stoppedBy.length === 0 ? 'moves' : 'does not move'} one from ${from} to ${to}, as foreseen`, async () => {
        const { status, exit, complaints } = await restore(from, to, qemu, defaults)
        if (stoppedBy.length === 0) assert.equal(status, 'completed', complaints)
        else
          assert.notEqual(
            status ?? exit,
            'completed',
            `it moves, and was to fail for ${stoppedBy.length} registers`,
          )
        // Before 11.1 QEMU named no register.
        if (qemu === 'qemu@11.1') assert.deepEqual(blamed(complaints), stoppedBy)
      })
    }
  }

  it('takes the option that was written for it, and the PSCI version pinned by it lets the VM go back', async () => {
    assert.match(pinned, /kvm-psci-version=1\.1/)
    assert.deepEqual(foreseen('7.2', '6.12', 'qemu@11.1'), ['KVM_REG_ARM_PSCI_VERSION'])
    assert.deepEqual(foreseen('7.2', '6.12', 'qemu@11.1', '1.1'), [])
    const { status, complaints } = await restore('7.2', '6.12', 'qemu@11.1', pinned)
    assert.equal(status, 'completed', complaints)
  })
})

describe('the option written for QEMU', { timeout: 20 * 60 * 1000 }, () => {
  const pauth: VcpuFeature[] = ['ptrauth-address', 'ptrauth-generic']
  const all = Array.from({ length: 16 }, (_, index) => (index + 1) * 128)
  const asked: { features: VcpuFeature[]; lengths: number[] }[] = [
    { features: ['psci-0.2'], lengths: [] },
    { features: ['psci-0.2', 'pmu-v3', 'sve', ...pauth], lengths: all },
    { features: ['psci-0.2', 'sve'], lengths: [128, 256, 384, 512] },
    { features: ['psci-0.2', 'el1-32bit'], lengths: [] },
  ]

  it('makes a CPU with what was asked for and nothing else', async () => {
    const directories = await Promise.all(qemus.map(qemuDirectory))
    await using lab = await bootWith(directories, '6.12', 'max')
    for (const [index, qemu] of qemus.entries()) {
      for (const { features: wanted, lengths } of asked) {
        using kvm = openKvm(simulator('linux-6.12-max'))
        const configuration = { ...guestConfiguration(kvm, wanted), vectorLengths: lengths }
        const { text } = qemuCpuOption(configuration, qemu === 'qemu@10.0' ? '10.0' : '11.1')
        const cpu = /^-cpu (.*)\n$/.exec(text)![1]!
        const { properties, complaints } = await driveIn(lab, directories[index]!, 'show', '-', cpu)
        assert.ok(properties, `${qemu} ${text}: ${complaints}`)
        const has = (name: string) => properties[name] ?? assert.fail(`${qemu} has no property ${name}`)
        assert.equal(has('pmu'), wanted.includes('pmu-v3'), text)
        assert.equal(has('pauth'), wanted.includes('ptrauth-generic'), text)
        assert.equal(has('aarch64'), !wanted.includes('el1-32bit'), text)
        assert.deepEqual(
          all.filter((length) => has(`sve${length}`)),
          lengths,
          text,
        )
      }
    }
  })
})
