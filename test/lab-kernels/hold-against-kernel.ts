/** Boots a lab host and holds the recorded report, the simulator and the addon against the real kernel. */
import assert from 'node:assert/strict'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, it } from 'vitest'
import { type CheckResult, conformance } from '../../lib/conformance/index.js'
import { captureHost } from '../../lib/migration/capture.js'
import { verdict as judge } from '../../lib/migration/verdict.js'
import { checkVerdict } from '../../lib/migration/verdict-document.js'
import { vmmNames, vmmRules } from '../../lib/migration/vmm/names.js'
import { openKvm } from '../../lib/kvm/index.js'
import type { Lab } from '../../lib/lab/index.js'
import { packageRoot } from '../../lib/package-root.js'
import { parseReport, readReport } from '../../lib/report/read.js'
import type { Report } from '../../lib/report/report.js'
import { decodeRegister, encodeRegister } from '../../lib/registers/index.js'
import { simulator } from '../../lib/hosts/index.js'
import { baselineWork, doBaselineWork } from './baselines.js'
import { askGuestCalls } from './guest-calls.js'
import {
  bootWithTests,
  fuzzCommand,
  kernels,
  labHosts,
  logOf,
  otherHosts,
  recordedHost,
  recordedHosts,
  runInside,
} from './lab-hosts.js'
import { freshStates, type RestoreAnswer, restoreAll, sourceStates } from './restores.js'
import { ask, type Answer } from './scenarios.js'

/** Calls invented on each host, and on those beyond every kernel and CPU. */
const FUZZED = 20_000
const FUZZED_ON_OTHERS = 7_000
/** Calls about the registers of a GICv3, invented once for each kernel. */
const FUZZED_GIC = 5_000

/** Whether nothing is left out for the sake of time: `npm run test:hosts`. */
const isWhole = process.env['KVM_ARM64_HOSTS'] === 'whole'

/** The tests of one recorded host; a file in hosts/ for each lets hosts be tested side by side. */
export function holdAgainstKernel(name: string): void {
  const machine = recordedHost(name)
  const { kernel } = machine
  const isOther = otherHosts.includes(machine)
  // What is done once for each kernel is done on one of the hosts of every kernel and CPU.
  const cpu = isOther ? null : machine.cpu
  // A vCPU made after its VM's first run makes a kernel with pKVM warn and lose memory: what makes some is left out there.
  const isProtected = machine.append?.includes('kvm-arm.mode=protected') ?? false
  // A CPU that the newest kernel is held on as well is looked at more briefly between that and the oldest, for CI's sake.
  const isBrief =
    !isWhole &&
    cpu !== 'neoverse-n1' &&
    cpu !== 'max' &&
    kernel !== kernels[0] &&
    kernel !== kernels.at(-1) &&
    labHosts.some((host) => host.name === name.replace(kernel, kernels.at(-1)!))
  const fuzzed = isOther ? FUZZED_ON_OTHERS : FUZZED
  const sources = isOther
    ? [machine, ...recordedHosts.filter((host) => host.kernel === kernel)]
    : recordedHosts
  describe('real kernels', () => {
    describe(`Linux ${kernel} on ${isOther ? name.replace(`linux-${kernel}-`, '') : cpu}`, () => {
      let lab: Lab
      let probed: Report

      beforeAll(async () => {
        lab = await bootWithTests(machine)
      })
      afterAll(() => lab.close())

      it('shows what its recorded report says', async () => {
        const { stdout } = await runInside(lab, 'kvm-arm64', 'probe', '--backend', 'kernel', '--json')
        probed = parseReport(stdout.toString(), name)
        const recorded = readReport(fileURLToPath(new URL(`lib/hosts/recorded/${name}.json`, packageRoot)))
        // A stable update of the kernel's package is no difference; what it shows would be.
        assert.deepEqual({ ...probed, probedAt: '', host: {} }, { ...recorded, probedAt: '', host: {} })
      })

      // Once for each kernel, as others below: what it is about does not hang on the CPU.
      if (cpu === 'neoverse-n1' || isProtected)
        it('is probed again, with a census, with the same result and no line in its log', async () => {
          const before = await logOf(lab)
          const command = ['kvm-arm64', 'probe', '--census', '--backend', 'kernel', '--json']
          const { stdout } = await runInside(lab, ...command)
          const { census, ...again } = parseReport(stdout.toString(), name)
          assert.ok(census !== undefined)
          assert.deepEqual({ ...again, probedAt: '' }, { ...probed, probedAt: '' })
          assert.deepEqual(await logOf(lab), before)
        })

      it('lists only registers that decode to a name of the architecture or of KVM', () => {
        const entries = probed.configurations.flatMap((configuration) =>
          'added' in configuration ? configuration.added : [],
        )
        for (const { id } of [...probed.registers, ...entries]) {
          const register = decodeRegister(BigInt(id))
          assert.notEqual(register.space, 'unknown', id)
          assert.equal(encodeRegister(register.name), BigInt(id), register.name)
          assert.ok(
            !/^S\d_/.test(register.name) || isReservedIdSpace(BigInt(id)),
            `${id} is ${register.name}`,
          )
        }
      })

      if (!isProtected && !isBrief)
        it('answers every question as the simulator of its report does', async () => {
          const { stdout } = await runInside(lab, 'node', 'dist/test/lab-kernels/ask.js')
          const real = JSON.parse(stdout.toString()) as Answer[]
          const simulated = ask(simulator(probed))
          const writes = real.filter(
            ({ question }) => question.includes(' = ') || question.includes('written back'),
          )
          assert.ok(writes.length >= 300, `only ${writes.length} writes were compared`)
          assert.deepEqual(divergences(real, simulated), [])
        })

      it('restores the states of other hosts, register by register, as was predicted', async () => {
        const states = [...sourceStates(sources), ...(isWhole ? freshStates(labHosts) : [])]
        const stdin = JSON.stringify(states.map(({ state }) => state))
        const { status, stdout, stderr } = await lab.run(['node', 'dist/test/lab-kernels/ask-restores.js'], {
          stdin,
        })
        assert.equal(status, 0, stderr.toString())
        const real = JSON.parse(stdout.toString()) as RestoreAnswer[]
        const predicted = restoreAll(
          simulator(probed),
          states.map(({ state }) => state),
        )
        const compared = real.reduce((sum, { same, lines }) => sum + same + lines.length, 0)
        assert.ok(compared >= (isOther ? 4000 : 25_000), `only ${compared} registers were compared`)
        const differences = states.flatMap(({ source, what }, index) =>
          mispredictions(real[index]!, predicted[index]!).map((line) => `${source}, ${what}: ${line}`),
        )
        assert.deepEqual(differences.slice(0, 50), [])
      })

      if (cpu === 'neoverse-n1')
        it('gives a live verdict, explanations and all, as was predicted', async () => {
          using source = openKvm(simulator('linux-7.2-max'))
          using destination = openKvm(simulator(probed))
          const state = captureHost(source)
          const { stdout } = await lab.run(
            [
              'sh',
              '-c',
              'cat > vm.json && kvm-arm64 check --state vm.json --to this --live --vmm all --json',
            ],
            { stdin: JSON.stringify(state) },
          )
          const live = checkVerdict(JSON.parse(stdout.toString()), 'check')
          const vmms = vmmNames().filter((vmm) => vmmRules(vmm).name === vmm)
          const predicted = vmms.map((vmm) => judge(state, destination, vmmRules(vmm)))
          assert.ok(predicted[0]!.findings.length >= 20)
          const ends = {
            from: { name: 'vm.json', origin: { kind: 'simulation', of: 'linux-7.2-max' } },
            to: { name: 'this', origin: { kind: 'kernel' } },
            restoredOn: 'kernel',
          }
          const expected = predicted.map((move) => Object.assign({}, ends, move))
          assert.deepEqual(live.moves, expected)
        })

      if (cpu === 'neoverse-n1')
        it('answers every call of a guest as the simulator of its report does', async () => {
          const { stdout } = await runInside(lab, 'node', 'dist/test/lab-kernels/ask-guest-calls.js')
          const real = JSON.parse(stdout.toString()) as Answer[]
          assert.ok(real.length >= 5000, `only ${real.length} answers were compared`)
          assert.deepEqual(divergences(real, askGuestCalls(simulator(probed))), [])
        })

      it(`answers ${fuzzed} invented calls as the simulator of its report does`, async () => {
        const { stdout } = await runInside(lab, ...fuzzCommand(name, fuzzed, 1))
        assert.match(stdout.toString(), / 0 kinds of difference\n$/)
      })

      if (cpu === 'neoverse-n1' || (isWhole && cpu !== null))
        it(`answers ${FUZZED_GIC} calls about a GIC as the simulator of its report does`, async () => {
          const { stdout } = await runInside(lab, ...fuzzCommand(name, FUZZED_GIC, 1, 'gic'))
          assert.match(stdout.toString(), / 0 kinds of difference\n$/)
        })

      // The fleets whose baselines are tried consist of the hosts of every kernel and CPU.
      if (!isOther)
        it('takes the baselines of the fleets it is part of, and what was configured by them elsewhere', async () => {
          const work = baselineWork(name)
          const command = ['node', 'dist/test/lab-kernels/apply-baselines.js']
          const { status, stdout, stderr } = await lab.run(command, { stdin: JSON.stringify(work) })
          assert.equal(status, 0, stderr.toString())
          const real = JSON.parse(stdout.toString()) as Answer[]
          assert.ok(real.length >= 1000, `only ${real.length} answers were compared`)
          assert.deepEqual(divergences(real, doBaselineWork(simulator(probed), work)), [])
          const amiss = real.filter(
            ({ question, answer }) =>
              (question.startsWith('baseline of') && !/refused 0x0 $|^absent, as declared$/.test(answer)) ||
              (question.startsWith('from ') && !/^(same|\[\[\],\[\]\])$/.test(answer)),
          )
          assert.deepEqual(amiss, [])
        })

      if (!isBrief)
        it('keeps the contract of userspace, verdict for verdict as the simulator of its report, and logs nothing', async () => {
          const before = await logOf(lab)
          const { stdout } = await runInside(lab, 'kvm-arm64', 'conformance', '--json')
          const real = JSON.parse(stdout.toString()) as CheckResult[]
          assert.deepEqual(
            real
              .filter(({ verdict }) => verdict === 'fails')
              .map((result) => `${result.name}: ${result.did}`),
            [],
          )
          assert.deepEqual(untimed(real), untimed(conformance(simulator(probed))))
          assert.deepEqual(await logOf(lab), before)
        })

      // The CPU with registers of every width; for CI's sake with the oldest kernel and the newest.
      if (cpu === 'max' && (isWhole || kernel === kernels[0] || kernel === kernels.at(-1)))
        it('passes the addon’s own suite', async () => {
          const { stdout } = await runInside(lab, 'node', '--expose-gc', 'dist/test/native/kvm/suite.js')
          assert.match(stdout.toString(), /# fail 0\n/)
          assert.match(stdout.toString(), /# skipped 0\n/)
        })
    })
  })
}

/** A kernel and a simulation never need the same time. */
function untimed(results: CheckResult[]): CheckResult[] {
  return results.map((result) => ({ ...result, seconds: 0 }))
}

/** Unallocated encodings of the feature ID space have no name but their own; they read as zero and are listed. */
function isReservedIdSpace(id: bigint): boolean {
  const register = decodeRegister(id)
  if (register.space !== 'sysreg') return false
  const { op0, op1, crn, crm } = register.parts
  return op0 === 3 && op1 === 0 && crn === 0 && crm >= 1 && crm <= 7
}

function mispredictions(real: RestoreAnswer, predicted: RestoreAnswer): string[] {
  const [inReality, inPrediction] = [new Set(real.lines), new Set(predicted.lines)]
  return [
    ...(real.same === predicted.same
      ? []
      : [`the kernel restored ${real.same}, predicted ${predicted.same}`]),
    ...real.lines.filter((line) => !inPrediction.has(line)).map((line) => `the kernel ${line}`),
    ...predicted.lines.filter((line) => !inReality.has(line)).map((line) => `predicted ${line}`),
  ]
}

function divergences(real: readonly Answer[], simulated: readonly Answer[]): string[] {
  const lines = real.flatMap(({ question, answer }, index) => {
    const other = simulated[index]
    return other?.question === question && other.answer === answer
      ? []
      : [`${question}: the kernel ${answer}, the simulator ${other?.answer} (to ${other?.question})`]
  })
  return lines.slice(0, 50)
}
