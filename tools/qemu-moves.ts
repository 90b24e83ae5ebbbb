/**
 * Moves a VM by real QEMU between all hosts of `judgedHosts`, with default options, and holds the predictions against it:
 * `npm run tool qemu-moves DIRECTORY [save|restore|judge [HOST|QEMU…]]`. The directory keeps reports, streams and outcomes, so that an
 * interrupted run goes on where it stopped.
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Lab } from '../lib/lab/index.js'
import { readReport } from '../lib/report/read.js'
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
} from '../test/lab-kernels/qemu-moves.js'
import { runInside } from '../test/lab-kernels/lab-hosts.js'
import { type JudgedQemu, qemuDirectory, qemuSuites } from '../test/lab-kernels/qemu-packages.js'
import type { DriveResult } from '../test/lab-kernels/qemu-drive.js'

const [directory, phase, ...names] = process.argv.slice(2)
if (directory === undefined)
  throw new Error('usage: npm run tool qemu-moves DIRECTORY [save|restore|judge [HOST|QEMU…]]')
mkdirSync(directory, { recursive: true })
const place = (file: string): string => join(directory, file)
const versions = Object.keys(qemuSuites) as JudgedQemu[]
const asked = versions.filter((qemu) => names.includes(qemu))
const qemus = asked.length === 0 ? versions : asked
const named = judgedHosts.filter(({ name }) => names.includes(name))
const chosen = named.length === 0 ? judgedHosts : named
const directories = await Promise.all(qemus.map(qemuDirectory))

const streamOf = (from: string, qemu: JudgedQemu): string => place(`${from}.${qemu}.stream`)

async function save(host: JudgedHost): Promise<void> {
  if (unsaved(host.name).length === 0) return
  await using lab = await bootWithQemu(host, directories)
  await saveOn(lab, host)
}

/** The QEMUs that have not tried it. */
function unsaved(host: string): JudgedQemu[] {
  return qemus.filter((qemu) => outcomesIn(`${host}.saved.json`)[qemu] === undefined)
}

function outcomesIn(file: string): Record<string, DriveResult> {
  if (!existsSync(place(file))) return {}
  return JSON.parse(readFileSync(place(file), 'utf8')) as Record<string, DriveResult>
}

async function saveOn(lab: Lab, { name }: JudgedHost): Promise<void> {
  if (unsaved(name).length === 0) return
  const report = place(`${name}.report.json`)
  if (!existsSync(report)) writeFileSync(report, JSON.stringify(await probeInside(lab, name)))
  const tasks = unsaved(name).map((qemu): QemuTask => ({
    qemu,
    what: 'save',
    file: `/lab/${qemu}`,
    cpu: 'host',
  }))
  const results = await driveQemu(lab, tasks)
  const outcomes = outcomesIn(`${name}.saved.json`)
  for (const [index, { qemu, file }] of tasks.entries()) {
    const result = results[index]!
    outcomes[qemu] = result
    console.log(`${name}, ${qemu}: ${result.status ?? result.exit} ${result.complaints}`)
    if (result.status !== 'completed') continue
    const stream = await runInside(lab, 'cat', file)
    writeFileSync(streamOf(name, qemu), stream.stdout)
  }
  writeFileSync(place(`${name}.saved.json`), JSON.stringify(outcomes))
}

async function restore(host: JudgedHost): Promise<void> {
  const file = `${host.name}.restored.json`
  const outcomes = outcomesIn(file)
  const due = qemus.flatMap((qemu) =>
    judgedHosts
      .filter(({ name: from }) => existsSync(streamOf(from, qemu)) && !(`${from} ${qemu}` in outcomes))
      .map(({ name: from }): [string, JudgedQemu] => [from, qemu]),
  )
  if (due.length === 0) return
  await using lab = await bootWithQemu(host, directories)
  await saveOn(lab, host)
  // A few at a time, so that an interrupted run loses little.
  for (let first = 0; first < due.length; first += 6) {
    const tasks: QemuTask[] = []
    const some = due.slice(first, first + 6)
    for (const [from, qemu] of some) {
      const stream = `/lab/${from}.${qemu}`
      const stdin = readFileSync(streamOf(from, qemu))
      await lab.run(['sh', '-c', `cat >${stream}`], { stdin })
      tasks.push({ qemu, what: 'restore', file: stream, cpu: 'host' })
    }
    const begun = Date.now()
    const results = await driveQemu(lab, tasks)
    console.log(`${some.length} restored into ${host.name} in ${Date.now() - begun} ms`)
    for (const [index, [from, qemu]] of some.entries()) outcomes[`${from} ${qemu}`] = results[index]!
    writeFileSync(place(file), JSON.stringify(outcomes, null, 1))
    await runInside(lab, 'rm', ...tasks.map((task) => task.file))
  }
}

if (phase === undefined || phase === 'save') for (const host of chosen) await save(host)
if (phase === undefined || phase === 'restore') for (const host of chosen) await restore(host)
if (phase === undefined || phase === 'judge') judge()

function judge(): void {
  const reports = new Map(
    judgedHosts
      .filter(({ name }) => existsSync(place(`${name}.report.json`)))
      .map(({ name }) => [name, readReport(place(`${name}.report.json`))]),
  )
  for (const [name, report] of reports) {
    for (const qemu of qemus.filter((version) => existsSync(streamOf(name, version)))) {
      const unexpected = unexpectedInStream(readFileSync(streamOf(name, qemu)), report, qemu)
      console.log(`${qemu} saves on ${name}: ${unexpected.join(', ') || 'as predicted'}`)
      if (unexpected.length > 0) process.exitCode = 1
    }
  }
  let judged = 0
  let wrong = 0
  for (const { name: to } of judgedHosts) {
    for (const [key, result] of Object.entries(outcomesIn(`${to}.restored.json`))) {
      const [from, qemu] = key.split(' ') as [string, JudgedQemu]
      const found = disagreement(predictMove(reports.get(from)!, reports.get(to)!, qemu), result, qemu)
      judged++
      if (found === undefined) continue
      wrong++
      console.log(`${from} -> ${to}, ${qemu}: ${found}`)
    }
  }
  console.log(`${judged} moves judged, ${wrong} predicted wrongly`)
  if (wrong > 0) process.exitCode = 1
}
