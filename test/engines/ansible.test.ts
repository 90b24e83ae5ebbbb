/** Ansible collects fifty hosts by SSH, with the playbook that `kvm-arm64 collect --for ansible` writes. */
import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, test } from 'vitest'
import { readFleet } from '../../lib/fleet/classes.js'
import { builtInReport } from '../../lib/hosts/index.js'
import { formatDocument } from '../../lib/documents/write.js'
import { kvmArm64, main } from '../cli/run.js'
import { ensurePrograms } from '../debian.js'
import { manifest, pack } from '../package/pack.js'
import { type FleetHost, writeFleet } from './fleet.js'
import { SshHosts } from './sshd.js'

const HOSTS = 50
const KINDS = 10

function npmSetting(name: string): string {
  return execFileSync('npm', ['config', 'get', name], { encoding: 'utf8' }).trim()
}

describe('Ansible', () => {
  const folder = mkdtempSync(join(tmpdir(), 'kvm-arm64-ansible-'))
  const at = (path: string) => join(folder, path)
  const result = at('collect/results/all.json')
  let fleet: FleetHost[]
  let ssh: SshHosts

  beforeAll(async () => {
    await ensurePrograms(['ansible-playbook', 'sshd'])
    fleet = writeFleet(at('simulated'), HOSTS, KINDS)
    mkdirSync(at('hosts'))
    ssh = new SshHosts(
      at('ssh'),
      fleet.map(({ name }) => name),
      // npm looks for its settings, such as certificates, below the prefix.
      [`NPM_CONFIG_PREFIX=${at('prefix')}`, `NPM_CONFIG_GLOBALCONFIG=${npmSetting('globalconfig')}`],
    )
    await ssh.start()
    const lines = ssh.hosts.map(
      ({ name, address }, index) =>
        `${name} ansible_host=${address} kvm_arm64_simulate=${fleet[index]!.report} kvm_arm64_report=${at(`hosts/${name}.json`)}`,
    )
    writeFileSync(at('inventory'), `${lines.join('\n')}\n`)
    const { status, error } = kvmArm64(['collect', '--for', 'ansible', at('collect')])
    assert.equal(status, 0, error)
  })
  afterAll(async () => {
    await ssh?.stop()
    rmSync(folder, { recursive: true })
  })

  interface Played {
    status: number
    out: string
    /** Tasks that were not skipped, by host. */
    tasks: Record<string, { ok: number; changed: number; unreachable: number; failures: number }>
  }

  /** Runs a playbook; the variables take precedence over its settings. */
  async function play(book: string, variables: Record<string, unknown>, ...args: string[]): Promise<Played> {
    const all = {
      ...ssh.variables,
      ansible_python_interpreter: '/usr/bin/python3',
      kvm_arm64_command: [process.execPath, main],
      kvm_arm64_control_command: [process.execPath, main],
      kvm_arm64_become: false,
      ...variables,
    }
    const child = spawn(
      'ansible-playbook',
      ['-i', at('inventory'), book, '-e', JSON.stringify(all), ...args],
      {
        cwd: at('collect'),
        env: {
          ...process.env,
          ANSIBLE_FORKS: '10',
          ANSIBLE_LOCAL_TEMP: at('ansible'),
          ANSIBLE_NOCOLOR: '1',
          ANSIBLE_PIPELINING: '1',
          ANSIBLE_REMOTE_TEMP: at('ansible'),
          // A connection that is kept would outlive the sshd that a test ends.
          ANSIBLE_SSH_ARGS: '-o ControlMaster=no',
          LC_ALL: 'C.UTF-8',
        },
      },
    )
    let out = ''
    for (const stream of [child.stdout, child.stderr])
      stream.setEncoding('utf8').on('data', (text: string) => (out += text))
    const [status] = (await once(child, 'close')) as [number]
    const recap = out.matchAll(/^(\S+) +: ok=(\d+) +changed=(\d+) +unreachable=(\d+) +failed=(\d+)/gm)
    const tasks = Object.fromEntries(
      [...recap].map(([, host, ...counts]) => {
        const [ok, changed, unreachable, failures] = counts.map(Number) as [number, number, number, number]
        return [host!, { ok, changed, unreachable, failures }]
      }),
    )
    return { status, out, tasks }
  }

  /** Returns the hosts of which a report is fetched, or would be. */
  function fetching({ out }: Played, outcome: 'changed' | 'skipping'): string[] {
    const [, part = ''] = out.split(/^TASK \[Fetch the report\].*\n/m)
    const [task = ''] = part.split('\n\n')
    return task
      .split('\n')
      .filter((line) => line.startsWith(`${outcome}: [`))
      .map((line) => /\[(\S+)\]/.exec(line)![1]!)
  }

  test('shows with --check what it would do, and writes nothing', async () => {
    const played = await play(
      'collect.yml',
      { kvm_arm64_hosts: `node-01,node-02,node-${KINDS + 1}` },
      '--check',
    )
    assert.equal(played.status, 0, played.out)
    assert.deepEqual(fetching(played, 'skipping').length, 2)
    assert.match(played.out, /^TASK \[Merge\] \*+\nskipping: \[localhost\]/m)
    assert.ok(!existsSync(at('collect/results')))
    assert.deepEqual(readdirSync(at('hosts')), [])
  })

  test('collects a row of every host and one report of each class, and so all that one run over the reports finds', async () => {
    const played = await play('collect.yml', {})
    assert.equal(played.status, 0, played.out)
    assert.match(played.out, new RegExp(`${HOSTS} hosts in ${KINDS} classes`))
    assert.deepEqual(readdirSync(at('hosts')).length, HOSTS)
    const shipped = fetching(played, 'changed')
    assert.equal(shipped.length, KINDS)
    const classes = new Set(shipped.map((name) => fleet.find((host) => host.name === name)!.class))
    assert.equal(classes.size, shipped.length)
    assert.equal(kvmArm64(['fleet', 'summarise', at('hosts'), '-o', at('single.json')]).status, 0)
    assert.equal(readFileSync(result, 'utf8'), readFileSync(at('single.json'), 'utf8'))
    assert.deepEqual(readdirSync(at('collect/results')).toSorted(), ['all.json', 'fleet.html'])
  })

  test('fetches a report only for a new class, and goes on without hosts that do not answer', async () => {
    const [down, broken, updated, same] = ['node-01', 'node-02', 'node-03', 'node-04']
    await ssh.stopOne(down)
    writeFileSync(fleet[1]!.report, '{}')
    writeFileSync(fleet[2]!.report, formatDocument(builtInReport('seed-v6')))
    const before = readFleet(result).hosts
    const played = await play('collect.yml', { kvm_arm64_hosts: [down, broken, updated, same].join() })
    const { hosts } = readFleet(result)
    assert.notEqual(played.status, 0, played.out)
    assert.equal(played.tasks[down]?.unreachable, 1)
    assert.equal(played.tasks[broken]?.failures, 1)
    assert.match(played.out, /is not a report/)
    assert.deepEqual(fetching(played, 'changed'), [updated])
    assert.equal(hosts.length, HOSTS)
    for (const [index, name] of [down, broken].entries()) assert.deepEqual(hosts[index], before[index], name)
    assert.notEqual(hosts[2]!.class, before[2]!.class)
    assert.equal(hosts[3]!.class, before[3]!.class)
    assert.ok(hosts[3]!.probedAt > before[3]!.probedAt)
  })

  test('installs the package from a tarball, once', async () => {
    const settings = {
      kvm_arm64_hosts: 'node-05',
      kvm_arm64_command: [at('prefix/bin/kvm-arm64')],
      kvm_arm64_package: pack(folder).file,
    }
    const first = await play('install.yml', settings)
    assert.equal(first.status, 0, first.out)
    assert.match(first.out, /^TASK \[Install with npm\] \*+\nchanged: \[node-05\]/m)
    assert.equal(kvmArm64(['--version']).out.trim(), manifest.version)
    const again = await play('install.yml', settings)
    assert.deepEqual(again.tasks, { 'node-05': { ok: 1, changed: 0, unreachable: 0, failures: 0 } })
  })
})
