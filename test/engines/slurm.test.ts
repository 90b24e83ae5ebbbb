/** Slurm collects a fleet, with the jobs that `kvm-arm64 collect --for slurm` writes: a worker dies, and a shard arrives twice. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { afterAll, beforeAll, describe, test } from 'vitest'
import { readFleet } from '../../lib/fleet/classes.js'
import { kvmArm64, main, onX64 } from '../cli/run.js'
import { ensurePrograms } from '../debian.js'
import { writeFleet } from './fleet.js'
import { Slurm } from './slurm.js'

const nodes = ['node1', 'node2']

describe('Slurm', () => {
  const folder = mkdtempSync(join(tmpdir(), 'kvm-arm64-slurm-'))
  const at = (path: string) => join(folder, path)
  const shared = at('shared')
  const slurm = new Slurm(at('slurm'))

  beforeAll(async () => {
    await ensurePrograms(['munged', 'slurmctld', 'slurmd', 'sbatch'])
    await slurm.start(nodes)
    const { status, error } = kvmArm64(['collect', '--for', 'slurm', shared])
    assert.equal(status, 0, error)
  })
  afterAll(async () => {
    await slurm.stop()
    rmSync(folder, { recursive: true })
  })

  /** Runs a command in the shared directory. */
  async function run(
    program: string,
    args: readonly string[],
    env: Record<string, string> = {},
  ): Promise<{ status: number | null; out: string }> {
    const child = spawn(program, args, {
      cwd: shared,
      env: {
        ...process.env,
        ...slurm.environment,
        KVM_ARM64: `${process.execPath} ${main}`,
        LC_ALL: 'C.UTF-8',
        ...env,
      },
    })
    let out = ''
    for (const stream of [child.stdout, child.stderr])
      stream.setEncoding('utf8').on('data', (text: string) => (out += text))
    const [status] = (await once(child, 'close')) as [number | null]
    return { status, out }
  }

  /** Writes a program that runs in place of the command, and returns how to call it. */
  function inItsPlace(script: string): string {
    const file = at('in-its-place.sh')
    writeFileSync(file, `set -euo pipefail\n${script}\n`)
    return `bash ${file}`
  }

  test('probes every node of a job: a row of each, and a report of a class', async () => {
    const env = { KVM_ARM64_SIMULATE: 'linux-6.12-max' }
    const { status, out } = await run('sbatch', ['--wait', '--nodes=2', '--output=log', 'probe.sbatch'], env)
    const log = readFileSync(join(shared, 'log'), 'utf8')
    assert.equal(status, 0, out + log)
    assert.deepEqual(readdirSync(join(shared, 'rows')).toSorted(), ['node1.json', 'node2.json'])
    // Nothing is left of the drafts.
    const [of, ...others] = readdirSync(join(shared, 'reports'))
    assert.deepEqual(others, [])
    const { hosts, classes } = readFleet([join(shared, 'rows'), join(shared, 'reports', of!)])
    assert.deepEqual(
      hosts.map(({ name }) => name),
      nodes,
    )
    assert.deepEqual(
      classes.map(({ digest, hasReport }) => [digest, hasReport]),
      [[of, true]],
    )
    const collected = await run('./collect.sh', ['rows', 'reports'])
    assert.equal(collected.status, 0, collected.out)
    assert.match(collected.out, /^2 hosts in 1 class/m)
    rmSync(join(shared, 'all.json'))
  })

  test('fails where nodes have no arm64 KVM, and keeps no row of them', async () => {
    rmSync(join(shared, 'rows'), { recursive: true })
    const env = { KVM_ARM64: [process.execPath, ...onX64, main].join(' ') }
    const { status, out } = await run('salloc', ['--quiet', '--nodes=2', './probe.sbatch'], env)
    assert.notEqual(status, 0)
    assert.match(out, /kvm-arm64: .*ERR_KVM_WRONG_ARCHITECTURE|kvm-arm64: .*arm64/)
    assert.deepEqual(readdirSync(join(shared, 'rows')), [])
    assert.equal(readdirSync(join(shared, 'reports')).length, 1)
  })

  test('equals one run, though a worker is killed, a shard is delivered twice and a report is damaged', async () => {
    const fleet = writeFleet(at('fleet'), 50, 10)
    const damaged = fleet[12]!
    writeFileSync(damaged.report, readFileSync(damaged.report).subarray(0, 10_000))
    const marker = at('pid')
    const command = inItsPlace(`
      if [[ \${SLURM_ARRAY_TASK_ID:-} == 3 && ! -e ${marker} ]]; then
        echo $PPID > ${marker}.draft
        mv ${marker}.draft ${marker}
        sleep 100
      fi
      ${process.execPath} ${main} "$@" || status=$?
      if [[ \${SLURM_ARRAY_TASK_ID:-} == 2 ]]; then cp "\${*: -1}" "$(dirname "\${*: -1}")/again.json"; fi
      exit \${status:-0}`)
    const env = { KVM_ARM64: command, KVM_ARM64_SHARDS: '8' }
    const collecting = run('./collect.sh', [at('fleet')], env)
    while (!existsSync(marker)) await delay(20)
    process.kill(Number(readFileSync(marker, 'utf8')), 'SIGKILL')
    const { status, out } = await collecting
    assert.match(out, /^try 1: 50 files in 8 shards, to do: 1,2,3,4,5,6,7,8$/m)
    assert.match(out, /^try 2: 50 files in 8 shards, to do: 3$/m)
    assert.doesNotMatch(out, /^try 3/m)
    assert.match(out, /^49 hosts in 10 classes/m)
    assert.match(out, new RegExp(`^could not be read: "${damaged.name}"$`, 'm'))
    assert.equal(status, 2, out)
    const single = kvmArm64(['fleet', 'summarise', at('fleet'), '-o', at('single.json')])
    assert.equal(single.status, 2)
    assert.equal(readFileSync(join(shared, 'all.json'), 'utf8'), readFileSync(at('single.json'), 'utf8'))
    assert.deepEqual(
      readdirSync(shared).filter((file) => file.startsWith('.collect')),
      [],
    )
  })

  test('names the shards that fail each time, and leaves the result as it was', async () => {
    const before = readFileSync(join(shared, 'all.json'), 'utf8')
    const env = {
      KVM_ARM64: inItsPlace('echo broken >&2; exit 7'),
      KVM_ARM64_SHARDS: '1',
      KVM_ARM64_TRIES: '1',
    }
    const { status, out } = await run('./collect.sh', [at('fleet')], env)
    assert.equal(status, 1, out)
    const [, logs] = /shards 1 failed \(tries: 1\); their output is in (.*)$/m.exec(out)!
    assert.match(readFileSync(join(logs!, '1.1'), 'utf8'), /^broken$/m)
    assert.equal(readFileSync(join(shared, 'all.json'), 'utf8'), before)
  })

  test('refuses a directory without reports', async () => {
    const { status, out } = await run('./collect.sh', [at('slurm')])
    assert.equal(status, 1)
    assert.match(out, /no \*\.json in /)
  })
})
