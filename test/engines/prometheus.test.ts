/** Prometheus scrapes the metrics that the files of `kvm-arm64 collect --for prometheus` write, through node_exporter. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, test } from 'vitest'
import { classOf } from '../../lib/report/digest.js'
import { builtInReport } from '../../lib/hosts/index.js'
import { kvmArm64, main } from '../cli/run.js'
import { ensurePrograms } from '../debian.js'
import { Daemons, freePort } from './daemon.js'

const simulated = { one: 'linux-6.12-max', two: 'linux-7.2-max' } as const
type Host = keyof typeof simulated
const hosts = Object.keys(simulated) as Host[]

/** Returns the class of a built-in host. */
function expected(name: string): string {
  return classOf(builtInReport(name))
}

describe('Prometheus', () => {
  const folder = mkdtempSync(join(tmpdir(), 'kvm-arm64-prometheus-'))
  const at = (path: string) => join(folder, path)
  const daemons = new Daemons()
  const ports = new Map<Host | 'prometheus', number>()

  beforeAll(async () => {
    await ensurePrograms(['prometheus', 'prometheus-node-exporter', 'systemd-analyze'])
    const { status, error } = kvmArm64(['collect', '--for', 'prometheus', at('collect')])
    assert.equal(status, 0, error)
    for (const host of hosts) {
      mkdirSync(at(host))
      writeMetrics(host, simulated[host])
      ports.set(host, await freePort())
      daemons.start(host, 'prometheus-node-exporter', [
        '--collector.disable-defaults',
        '--collector.textfile',
        `--collector.textfile.directory=${at(host)}`,
        `--web.listen-address=127.0.0.1:${ports.get(host)}`,
      ])
    }
    const targets = hosts.map(
      (host) => `{ targets: ['127.0.0.1:${ports.get(host)}'], labels: { instance: ${host} } }`,
    )
    writeFileSync(
      at('prometheus.yml'),
      `global: { scrape_interval: 1s, evaluation_interval: 1s }
rule_files: [collect/kvm-arm64.rules.yml]
scrape_configs: [{ job_name: node, static_configs: [${targets.join(', ')}] }]
`,
    )
    ports.set('prometheus', await freePort())
    daemons.start('prometheus', 'prometheus', [
      `--config.file=${at('prometheus.yml')}`,
      `--storage.tsdb.path=${at('data')}`,
      `--web.listen-address=127.0.0.1:${ports.get('prometheus')}`,
    ])
  })
  afterAll(async () => {
    await daemons.stop()
    rmSync(folder, { recursive: true })
  })

  /** Runs metrics.sh as on a host. */
  function metrics(host: Host, env: Record<string, string>): { status: number | null; stderr: string } {
    return spawnSync(at('collect/metrics.sh'), {
      encoding: 'utf8',
      env: {
        ...process.env,
        KVM_ARM64: `${process.execPath} ${main}`,
        KVM_ARM64_TEXTFILE: at(host),
        ...env,
      },
    })
  }

  function writeMetrics(host: Host, name: string): void {
    const { status, stderr } = metrics(host, { KVM_ARM64_SIMULATE: name })
    assert.equal(status, 0, stderr)
  }

  /** Returns the labels and the value of each series that a query finds. */
  async function query(expression: string): Promise<{ metric: Record<string, string>; value: string }[]> {
    const address = `http://127.0.0.1:${ports.get('prometheus')}/api/v1/query?query=${encodeURIComponent(expression)}`
    const response = await fetch(address)
    const { data } = (await response.json()) as {
      data: { result: { metric: Record<string, string>; value: [number, string] }[] }
    }
    return data.result.map(({ metric, value }) => ({ metric, value: value[1] }))
  }

  /** Waits until a query finds that many series. */
  async function found(expression: string, number: number): ReturnType<typeof query> {
    let series: Awaited<ReturnType<typeof query>> = []
    await daemons.until(expression, async () => {
      series = await query(expression).catch(() => [])
      return series.length === number
    })
    return series
  }

  test('finds the class of every host, and that a simulation answered', async () => {
    const series = await found('kvm_arm64_info', hosts.length)
    assert.deepEqual(
      series.map(({ metric }) => `${metric.instance}: ${metric.class} by a ${metric.origin}`).toSorted(),
      hosts.map((host) => `${host}: ${expected(simulated[host])} by a simulation`),
    )
    for (const { value } of await found('node_textfile_scrape_error', hosts.length)) assert.equal(value, '0')
    const counted = await found('kvm_arm64:hosts', hosts.length)
    assert.deepEqual(
      counted.map(({ value }) => value),
      ['1', '1'],
    )
    assert.deepEqual(await query('ALERTS'), [])
  })

  test('raises an alarm where a host comes back in another class', async () => {
    writeMetrics('one', simulated.two)
    const [alarm] = await found('ALERTS{alertname="KvmArm64ClassChanged"}', 1)
    assert.deepEqual([alarm!.metric.instance, alarm!.metric.alertstate], ['one', 'firing'])
    const [counted] = await found(`kvm_arm64:hosts{class="${expected(simulated.two)}"} == 2`, 1)
    assert.equal(counted!.value, '2')
  })

  test('keeps the metrics of the last probe where one fails', () => {
    const file = at('two/kvm-arm64.prom')
    const before = readFileSync(file, 'utf8')
    const { status, stderr } = metrics('two', { KVM_ARM64_SIMULATE: 'no-such-host' })
    assert.equal(status, 2)
    assert.match(stderr, /no-such-host: no such report file or built-in host/)
    assert.equal(readFileSync(file, 'utf8'), before)
    assert.deepEqual(readdirSync(at('two')), ['kvm-arm64.prom'])
  })

  test('has units that systemd accepts', () => {
    mkdirSync(at('units'))
    const units = ['kvm-arm64-metrics.service', 'kvm-arm64-metrics.timer']
    for (const unit of units) {
      const text = readFileSync(at(`collect/${unit}`), 'utf8')
      // Where the command of docs/collection.md installs the script.
      writeFileSync(
        at(`units/${unit}`),
        text.replace('/usr/local/lib/kvm-arm64/metrics.sh', at('collect/metrics.sh')),
      )
    }
    const { status, stderr } = spawnSync(
      'systemd-analyze',
      ['verify', ...units.map((unit) => at(`units/${unit}`))],
      {
        encoding: 'utf8',
      },
    )
    assert.deepEqual([status, stderr], [0, ''])
  })
})
