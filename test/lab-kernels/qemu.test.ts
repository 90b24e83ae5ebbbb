import assert from 'node:assert/strict'
import { afterAll, beforeAll, describe, it } from 'vitest'
import { computeBaseline } from '../../lib/fleet/baseline/baseline.js'
import { baselineConfiguration } from '../../lib/interchange/baseline.js'
import { guestConfiguration } from '../../lib/interchange/configuration.js'
import { qemuCpuOption } from '../../lib/interchange/qemu.js'
import { openKvm } from '../../lib/kvm/index.js'
import type { Lab } from '../../lib/lab/index.js'
import { builtInReport, simulator } from '../../lib/hosts/index.js'
import { parseReport } from '../../lib/report/read.js'
import type { Report } from '../../lib/report/report.js'
import type { VcpuFeature } from '../../lib/uapi.js'
import { runInside } from './lab-hosts.js'
import type { DriveResult } from './qemu-drive.js'
import { bootWithQemu, disagreement, driveQemu, judgedHosts, predictMove } from './qemu-moves.js'
import { type JudgedQemu, qemuDirectory, qemuSuites } from './qemu-packages.js'

const qemus = Object.keys(qemuSuites) as JudgedQemu[]

/** Of the hosts of `npm run tool qemu-moves`, which moves between all of them: other kernels, and the PMU off on one side. */
const names = ['5.10-n1', '6.12-n1', '7.2-n1', '6.12-n1-nopmu']
const hosts = judgedHosts.filter(({ name }) => names.includes(name))

describe('QEMU with default options, moving a VM between real hosts', { timeout: 30 * 60 * 1000 }, () => {
  const labs = new Map<string, Lab>()
  const reports = new Map<string, Report>()
  const directories = new Map<JudgedQemu, string>()
  const streams = new Map<string, Buffer>()
  const option = qemuCpuOption(
    baselineConfiguration(
      computeBaseline(
        ['linux-6.12-neoverse-n1', 'linux-7.2-neoverse-n1'].map((name) => ({
          name,
          report: builtInReport(name),
        })),
        { features: ['psci-0.2', 'pmu-v3'] },
      ),
    ),
    '11.1',
  )
  const pinned = /^-cpu (.*)\n$/.exec(option.text)![1]!

  const drive = (host: string, qemu: JudgedQemu, ...args: string[]): Promise<DriveResult> =>
    driveQemu(labs.get(host)!, directories.get(qemu)!, ...args)

  const save = async (host: string, qemu: JudgedQemu, cpu: string): Promise<void> => {
    const result = await drive(host, qemu, 'save', '/lab/stream', cpu)
    assert.deepEqual(result, { status: 'completed', complaints: '' }, `saving on ${host} with ${qemu}`)
    const { stdout } = await labs.get(host)!.run(['cat', '/lab/stream'])
    assert.ok(stdout.length > 100_000)
    streams.set([host, qemu, cpu].join(), stdout)
  }

  const restore = async (from: string, to: string, qemu: JudgedQemu, cpu: string): Promise<DriveResult> => {
    const stdin = streams.get([from, qemu, cpu].join())
    assert.ok(stdin, 'nothing was saved')
    await labs.get(to)!.run(['sh', '-c', 'cat >/lab/stream'], { stdin })
    return await drive(to, qemu, 'restore', '/lab/stream', cpu)
  }

  beforeAll(
    async () => {
      assert.equal(hosts.length, names.length)
      for (const qemu of qemus) directories.set(qemu, await qemuDirectory(qemu))
      for (const host of hosts) {
        const { name } = host
        const lab = await bootWithQemu(host, [...directories.values()])
        labs.set(name, lab)
        const { stdout } = await runInside(lab, 'kvm-arm64', 'probe', '--backend', 'kernel', '--json')
        reports.set(name, parseReport(stdout.toString(), name))
        for (const qemu of qemus) await save(name, qemu, 'host')
      }
      await save('7.2-n1', 'qemu@11.1', pinned)
    },
    30 * 60 * 1000,
  )
  afterAll(async () => {
    for (const lab of labs.values()) await lab.close()
  })

  for (const qemu of qemus) {
    for (const from of names) {
      for (const to of names) {
        if (from === to) continue
        it(`${qemu} moves one from ${from} to ${to} as predicted, or blames the predicted registers`, async () => {
          const predicted = predictMove(reports.get(from)!, reports.get(to)!, qemu)
          const result = await restore(from, to, qemu, 'host')
          assert.equal(disagreement(predicted, result, qemu), undefined)
        })
      }
    }
  }

  it('takes the option that was written for it, and the PSCI version pinned by it lets the VM go back', async () => {
    assert.match(pinned, /kvm-psci-version=1\.1/)
    const predicted = predictMove(reports.get('7.2-n1')!, reports.get('6.12-n1')!, 'qemu@11.1')
    assert.deepEqual(predicted, {
      completes: false,
      blames: ['KVM_REG_ARM_PSCI_VERSION'],
      mayStopEarly: false,
    })
    const { status, complaints } = await restore('7.2-n1', '6.12-n1', 'qemu@11.1', pinned)
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
    await using lab = await bootWithQemu({ name: 'max', kernel: '6.12', cpu: 'max' }, directories)
    for (const [index, qemu] of qemus.entries()) {
      for (const { features: wanted, lengths } of asked) {
        using kvm = openKvm(simulator('linux-6.12-max'))
        const configuration = { ...guestConfiguration(kvm, wanted), vectorLengths: lengths }
        const { text } = qemuCpuOption(configuration, qemu === 'qemu@10.0' ? '10.0' : '11.1')
        const cpu = /^-cpu (.*)\n$/.exec(text)![1]!
        const { properties, complaints } = await driveQemu(lab, directories[index]!, 'show', '-', cpu)
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
