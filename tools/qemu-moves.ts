/**
 * Moves a VM by real QEMU between all hosts of `judgedHosts`, with default options, and holds the predictions against it:
 * `npm run tool qemu-moves DIRECTORY [save|restore|judge [HOST|QEMU…]]`. The directory keeps reports, streams and outcomes, so that an
 * interrupted run goes on where it stopped.
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { readReport } from '../lib/report/read.js'
import {
  bootWithQemu,
  disagreement,
  driveQemu,
  type JudgedHost,
  judgedHosts,
  predictMove,
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
const directories = new Map<JudgedQemu, string>()
for (const qemu of qemus) directories.set(qemu, await qemuDirectory(qemu))

const streamOf = (from: string, qemu: JudgedQemu): string => place(`${from}.${qemu}.stream`)

async function save(host: JudgedHost): Promise<void> {
  if (existsSync(place(`${host.name}.saved.json`))) return
  await using lab = await bootWithQemu(host, [...directories.values()])
  const { stdout, milliseconds } = await runInside(lab, 'kvm-arm64', 'probe', '--backend', 'kernel', '--json')
  writeFileSync(place(`${host.name}.report.json`), stdout)
  console.log(`${host.name}: probed in ${milliseconds.toFixed(0)} ms`)
  const outcomes: Record<string, DriveResult> = {}
  for (const qemu of qemus) {
    const result = await driveQemu(lab, directories.get(qemu)!, 'save', '/lab/stream', 'host')
    console.log(`${host.name}, ${qemu}: ${result.status ?? result.exit} ${result.complaints}`)
    outcomes[qemu] = result
    if (result.status === 'completed') {
      const stream = await lab.run(['cat', '/lab/stream'])
      writeFileSync(streamOf(host.name, qemu), stream.stdout)
    }
  }
  writeFileSync(place(`${host.name}.saved.json`), JSON.stringify(outcomes))
}

async function restore(host: JudgedHost): Promise<void> {
  const file = place(`${host.name}.restored.json`)
  const outcomes = (existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : {}) as Record<
    string,
    DriveResult
  >
  const due = judgedHosts.flatMap(({ name: from }) =>
    qemus
      .filter((qemu) => existsSync(streamOf(from, qemu)) && outcomes[`${from} ${qemu}`] === undefined)
      .map((qemu): [string, JudgedQemu] => [from, qemu]),
  )
  if (due.length === 0) return
  await using lab = await bootWithQemu(host, [...directories.values()])
  for (const [from, qemu] of due) {
    const stdin = readFileSync(streamOf(from, qemu))
    await runInside(lab, 'true')
    await lab.run(['sh', '-c', 'cat >/lab/stream'], { stdin })
    const begun = Date.now()
    const result = await driveQemu(lab, directories.get(qemu)!, 'restore', '/lab/stream', 'host')
    outcomes[`${from} ${qemu}`] = result
    console.log(
      `${from} -> ${host.name}, ${qemu}: ${result.status ?? result.exit} in ${Date.now() - begun} ms`,
    )
    writeFileSync(file, JSON.stringify(outcomes, null, 1))
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
  let judged = 0
  let wrong = 0
  for (const { name: to } of judgedHosts) {
    const file = place(`${to}.restored.json`)
    if (!existsSync(file)) continue
    const outcomes = JSON.parse(readFileSync(file, 'utf8')) as Record<string, DriveResult>
    for (const [key, result] of Object.entries(outcomes)) {
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
