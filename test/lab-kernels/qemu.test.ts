import assert from 'node:assert/strict'
import { availableParallelism } from 'node:os'
import { afterAll, beforeAll, describe, it } from 'vitest'
import { computeBaseline } from '../../lib/fleet/baseline/baseline.js'
import { baselineConfiguration } from '../../lib/interchange/baseline.js'
import { guestConfiguration } from '../../lib/interchange/configuration.js'
import { qemuCpuOption } from '../../lib/interchange/qemu.js'
import { openKvm } from '../../lib/kvm/index.js'
import type { Lab } from '../../lib/lab/index.js'
import { builtInReport, simulator } from '../../lib/hosts/index.js'
import type { Report } from '../../lib/report/report.js'
import type { VcpuFeature } from '../../lib/uapi.js'
import type { DriveResult } from './qemu-drive.js'
import {
  bootWithQemu,
  disagreement,
  driveQemu,
  type JudgedHost,
  judgedHosts,
  predictMove,
  probeInside,
  type QemuTask,
  unexpectedInStream,
} from './qemu-moves.js'
import { type JudgedQemu, qemuDirectory, qemuSuites } from './qemu-packages.js'

const qemus = Object.keys(qemuSuites) as JudgedQemu[]

/**
 * Of the hosts of `npm run tool qemu-moves`, which moves between all of them with both QEMUs: other kernels, another CPU with SVE,
 * and the PMU or GICv3 missing on one side.
 */
const names = ['5.10-n1', '6.12-n1', '7.2-n1', '6.12-n1-nopmu', '6.12-n1-gicv2', '6.12-a64fx']
const hosts = judgedHosts.filter(({ name }) => names.includes(name))

interface Save {
  from: string
  qemu: JudgedQemu
  cpu: string
}

interface Move extends Save {
  to: string
}

function streamOf({ from, qemu, cpu }: Save): string {
  return [from, qemu, cpu].join()
}

/** Each way between two hosts with another QEMU, to halve the time. */
const moves = names.flatMap((from, i) =>
  names.flatMap((to, j): Move[] => {
    if (i === j) return []
    const isNewer = (i + j) % 2 === Number(i < j)
    return [{ from, to, qemu: isNewer ? 'qemu@11.1' : 'qemu@10.0', cpu: 'host' }]
  }),
)

/** Works on as many at once as there are processors: a machine of the lab keeps one busy. */
async function onAll<T>(all: readonly T[], work: (one: T) => Promise<void>): Promise<void> {
  const waiting = [...all]
  const workOff = async (): Promise<void> => {
    for (let one = waiting.shift(); one !== undefined; one = waiting.shift()) await work(one)
  }
  await Promise.all(Array.from({ length: availableParallelism() }, workOff))
}

describe('QEMU with default options, moving a VM between real hosts', { timeout: 30 * 60 * 1000 }, () => {
  const labs = new Map<string, Lab>()
  const reports = new Map<string, Report>()
  const streams = new Map<string, Buffer>()
  const outcomes = new Map<string, DriveResult>()
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
  const pinnedMove = { from: '7.2-n1', to: '6.12-n1', qemu: 'qemu@11.1', cpu: pinned } as const

  const all = [...moves, pinnedMove]

  const prepare = async (host: JudgedHost): Promise<void> => {
    const directories = await Promise.all(qemus.map(qemuDirectory))
    const lab = await bootWithQemu(host, directories)
    labs.set(host.name, lab)
    reports.set(host.name, await probeInside(lab, host.name))
    const saves: Save[] = qemus.map((qemu) => ({ from: host.name, qemu, cpu: 'host' }))
    if (host.name === pinnedMove.from) saves.push(pinnedMove)
    const tasks = saves.map(({ qemu, cpu }, index): QemuTask => ({
      qemu,
      what: 'save',
      file: `/lab/saved${index}`,
      cpu,
    }))
    const results = await driveQemu(lab, tasks)
    for (const [index, saved] of saves.entries()) {
      const key = streamOf(saved)
      assert.deepEqual(results[index], { status: 'completed', complaints: '' }, `saving ${key}`)
      const { stdout } = await lab.run(['cat', tasks[index]!.file])
      assert.ok(stdout.length > 100_000)
      streams.set(key, stdout)
    }
  }

  const restore = async ({ name }: JudgedHost): Promise<void> => {
    const lab = labs.get(name)!
    const due = all.filter(({ to }) => to === name)
    const tasks: QemuTask[] = []
    for (const [index, move] of due.entries()) {
      const file = `/lab/stream${index}`
      await lab.run(['sh', '-c', `cat >${file}`], { stdin: streams.get(streamOf(move))! })
      tasks.push({ qemu: move.qemu, what: 'restore', file, cpu: move.cpu })
    }
    const results = await driveQemu(lab, tasks)
    for (const [index, move] of due.entries()) outcomes.set(JSON.stringify(move), results[index]!)
    await lab.close()
  }

  const outcomeOf = (move: Move): DriveResult => outcomes.get(JSON.stringify(move))!

  beforeAll(
    async () => {
      assert.equal(hosts.length, names.length)
      await onAll(hosts, prepare)
      await onAll(hosts, restore)
    },
    30 * 60 * 1000,
  )
  afterAll(async () => {
    for (const lab of labs.values()) await lab.close()
  })

  for (const name of names) {
    it.each(qemus)(`%s saves the predicted registers on ${name}`, (qemu) => {
      const stream = streams.get(streamOf({ from: name, qemu, cpu: 'host' }))!
      assert.deepEqual(unexpectedInStream(stream, reports.get(name)!, qemu), [])
    })
  }

  for (const move of moves) {
    const { from, to, qemu } = move
    it(`${qemu} moves one from ${from} to ${to} as predicted, or blames the predicted registers`, () => {
      const predicted = predictMove(reports.get(from)!, reports.get(to)!, qemu)
      assert.equal(disagreement(predicted, outcomeOf(move), qemu), undefined)
    })
  }

  it('takes the option that was written for it, and the PSCI version pinned by it lets the VM go back', () => {
    assert.match(pinned, /kvm-psci-version=1\.1/)
    const predicted = predictMove(reports.get('7.2-n1')!, reports.get('6.12-n1')!, 'qemu@11.1')
    assert.deepEqual(predicted, {
      completes: false,
      blames: ['KVM_REG_ARM_PSCI_VERSION'],
      mayStopEarly: false,
    })
    const { status, complaints } = outcomeOf(pinnedMove)
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
    const questions = qemus.flatMap((qemu) =>
      asked.map(({ features: wanted, lengths }) => {
        using kvm = openKvm(simulator('linux-6.12-max'))
        const configuration = { ...guestConfiguration(kvm, wanted), vectorLengths: lengths }
        const { text } = qemuCpuOption(configuration, qemu === 'qemu@10.0' ? '10.0' : '11.1')
        return { qemu, text, cpu: /^-cpu (.*)\n$/.exec(text)![1]!, wanted, lengths }
      }),
    )
    const results = await driveQemu(
      lab,
      questions.map(({ qemu, cpu }) => ({ qemu, what: 'show', file: '-', cpu })),
    )
    for (const [index, { qemu, text, wanted, lengths }] of questions.entries()) {
      const { properties, complaints } = results[index]!
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
  })
})
