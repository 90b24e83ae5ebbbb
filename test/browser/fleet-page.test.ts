import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { afterAll, beforeAll, describe, it } from 'vitest'
import { builtInReport } from '../../lib/hosts/index.js'
import { kvmArm64 } from '../cli/run.js'
import { Page } from './chromium.js'

const hosts = ['linux-6.1-max', 'linux-6.12-max', 'linux-6.18-max', 'linux-7.2-max', 'linux-5.10-max']
/** Each would be a script, a picture or the end of one if the page took it for HTML. */
const hostile = [
  `</script><script>document.title = 'taken'</script>`,
  `<img src=x onerror="document.title = 'taken'">`,
  `"><svg onload=alert(1)>`,
  `<!--`,
  `javascript:alert(1)`,
]

describe('the page of a fleet, in a real browser', () => {
  let folder: string
  let page: Page

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'kvm-arm64-page-'))
    const lines = hosts.map((host, index) => {
      const report = builtInReport(host)
      report.host = { release: `${hostile[index]} ${host}`, build: hostile[index]! }
      return JSON.stringify({ name: hostile[index], report })
    })
    const reports = join(folder, 'reports.ndjson')
    const file = join(folder, 'page.html')
    writeFileSync(reports, `${lines.join('\n')}\n`)
    const { status, error } = kvmArm64(['fleet', reports, '--html', file, '--what-if', 'linux-6.18-max'])
    assert.equal(status, 0, error)
    page = await Page.open(`${pathToFileURL(file).href}#1-2`)
  })
  afterAll(async () => {
    await page.close()
    rmSync(folder, { recursive: true })
  })

  it('has a row and a column for each class, and in every cell a mark beside the colour', async () => {
    const rows = await page.ask<string[][]>(
      `[...document.querySelectorAll('#moves tbody tr')].map((row) => [...row.querySelectorAll('td')].map((cell) => cell.className + ' ' + cell.textContent))`,
    )
    assert.equal(rows.length, hosts.length)
    for (const [from, row] of rows.entries()) {
      assert.equal(row.length, hosts.length)
      for (const [to, cell] of row.entries()) {
        assert.match(
          cell,
          from === to ? /^self ·$/ : /^(yes ✓|changed ≈ \d+|no ✗ \d+)$|chosen/,
          `${from} ${to}`,
        )
      }
    }
    // 6.18 and 7.2 move both ways, 6.18 to 6.12 is stopped.
    assert.equal(rows[2]![3], 'yes ✓')
    assert.equal(rows[3]![2], 'yes ✓')
    assert.match(rows[2]![1]!, /^no /)
  })

  it('opens at the move its address names', async () => {
    assert.equal(await page.ask(`document.querySelector('#reason h2').textContent`), 'class 1 to class 2')
    assert.match(await page.ask(`document.querySelector('#reason').textContent`), /ID_AA64MMFR1_EL1\.HCX/)
  })

  it('shows the reasons of a move on a click', async () => {
    await page.click('#cell-3-4 a')
    await page.until(`document.querySelector('#reason h2').textContent === 'class 4 to class 5'`)
    assert.equal(await page.ask('location.hash'), '#4-5')
    assert.match(
      await page.ask(`document.querySelector('#reason').textContent`),
      /✗ KVM_REG_ARM_STD_BMAP\.STD_BIT_TRNG_V1_0service lost: .*may have discovered trng-v1\.0/,
    )
    assert.ok(await page.ask(`document.querySelector('#cell-3-4').classList.contains('chosen')`))
    assert.equal(await page.ask(`document.querySelectorAll('.chosen').length`), 1)
  })

  it('tells each link what it is for to those who do not see it', async () => {
    const labels = await page.ask<string[]>(
      `[...document.querySelectorAll('#moves td a')].map((link) => link.getAttribute('aria-label'))`,
    )
    assert.equal(labels.length, hosts.length * (hosts.length - 1))
    assert.ok(labels.includes('class 3 to class 4: moves'))
    assert.ok(labels.every((label) => /^class \d to class \d: /.test(label)))
  })

  it('lists classes, groups and what another kernel opens', async () => {
    assert.match(await page.ask(`document.querySelector('#groups').textContent`), /3, 4: 2 hosts/)
    assert.match(
      await page.ask(`document.querySelector('#upgrades').textContent`),
      /class 2 as linux-6\.18-max: opens /,
    )
    assert.equal(await page.ask(`document.querySelectorAll('#classes tbody tr').length`), hosts.length)
  })

  it('takes nothing a report says for anything but text', async () => {
    const text = await page.ask<string>(`document.body.textContent`)
    for (const one of hostile) assert.ok(text.includes(one), one)
    assert.equal(await page.ask('document.title'), 'Moves between 5 hosts')
    assert.equal(await page.ask(`document.querySelectorAll('img, svg, iframe').length`), 0)
    assert.equal(await page.ask(`document.querySelectorAll('script').length`), 2)
    assert.equal(
      await page.ask(`[...document.links].every((link) => link.getAttribute('href').startsWith('#'))`),
      true,
    )
  })

  it('needs nothing but itself and breaks nothing', async () => {
    assert.equal(await page.ask(`performance.getEntriesByType('resource').length`), 0)
    assert.deepEqual(page.complaints, [])
  })
})
