import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { afterAll, beforeAll, describe, it } from 'vitest'
import { fleetPage } from '../../lib/cli/fleet-page/fleet-page.js'
import { builtInReport } from '../../lib/hosts/index.js'
import { kvmArm64 } from '../cli/run.js'
import { Page } from './chromium.js'
import { manyClasses } from './many-classes.js'

const hosts = ['linux-6.1-max', 'linux-6.12-max', 'linux-6.18-max', 'linux-7.2-max', 'linux-5.10-max']
/** Each would be a script, a picture or the end of one if the page took it for HTML. */
const hostile = [
  `</script><script>document.title = 'taken'</script>`,
  `<img src=x onerror="document.title = 'taken'">`,
  `"><svg onload=alert(1)>`,
  `<!--`,
  `javascript:alert(1)`,
]
const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')
/** A phone, a laptop, a wall. */
const sizes = [
  [390, 844],
  [1440, 900],
  [1920, 1080],
] as const

const folder = mkdtempSync(join(tmpdir(), 'kvm-arm64-page-'))
let page: Page

beforeAll(async () => {
  page = await Page.start()
})
afterAll(async () => {
  await page.close()
  rmSync(folder, { recursive: true })
})

function addressOf(name: string): string {
  return pathToFileURL(join(folder, name)).href
}

async function text(selector: string): Promise<string> {
  return await page.ask<string>(`document.querySelector(${JSON.stringify(selector)}).textContent`)
}

/** The words for the current cell of the matrix. */
async function cell(): Promise<string> {
  return await page.ask<string>(`document.querySelector('#cell').getAttribute('aria-label')`)
}

/** The rules for accessible pages that the page breaks, and where. */
async function violations(): Promise<string[]> {
  await page.inject(axe)
  return await page.ask<string[]>(
    `axe.run({ resultTypes: ['violations'] }).then(({ violations }) =>
      violations.flatMap(({ id, nodes }) => nodes.map(({ target, failureSummary }) => [id, target, failureSummary].join(' '))))`,
  )
}

/** Waits until the page has followed a change of its window. */
async function resize(width: number, height: number, scheme?: 'light' | 'dark'): Promise<void> {
  await page.resize(width, height, scheme)
  await page.ask(`new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve, 50)))`)
}

describe('the page of a fleet, in a real browser', () => {
  /** The digest of each host's class, and its number on the page. */
  let classes: Map<string, { digest: string; number: number }>

  function link(from: string, to: string, more = ''): string {
    const [one, other] = [classes.get(from)!.digest, classes.get(to)!.digest]
    return `${addressOf('page.html')}#from=${one}&to=${other}${more}`
  }

  function title(from: string, to: string): string {
    return `Class ${classes.get(from)!.number} → class ${classes.get(to)!.number}`
  }

  beforeAll(async () => {
    const lines = hosts.map((host, index) => {
      const report = builtInReport(host)
      report.host = { release: `${hostile[index]} ${host}`, build: hostile[index]! }
      return JSON.stringify({ name: hostile[index], report })
    })
    const reports = join(folder, 'reports.ndjson')
    writeFileSync(reports, `${lines.join('\n')}\n`)
    const file = join(folder, 'page.html')
    const options = ['--vmm', 'strict,qemu', '--what-if', 'linux-6.18-max']
    const { status, error } = kvmArm64(['fleet', reports, '--html', file, ...options])
    assert.equal(status, 0, error)
    await page.go(addressOf('page.html'))
    const rows = await page.ask<[string, string][]>(
      `[...document.querySelectorAll('#classes tbody tr')].map((row) => [row.querySelector('th').title, row.textContent])`,
    )
    classes = new Map(
      hosts.map((host) => {
        const at = rows.findIndex(([, row]) => row.includes(host))
        return [host, { digest: rows[at]![0], number: at + 1 }]
      }),
    )
    assert.equal(rows.length, hosts.length)
  })

  it('says first where VMs can go, as it is and with the baseline', async () => {
    await page.go(`${addressOf('page.html')}#vmm=qemu@11.1`)
    const figures = await page.ask<string[]>(
      `[...document.querySelectorAll('.figure')].map((figure) => figure.innerText.replace(/\\s+/g, ' '))`,
    )
    assert.match(figures[0]!, /^As it is ([\d.]+) of 4 other hosts \d+ % of all moves/)
    assert.match(figures[1]!, /^With the baseline ([\d.]+) of 4 other hosts/)
    const [asIs, elected] = figures.map((figure) => Number(/[\d.]+/.exec(figure)![0]))
    assert.ok(elected! > asIs!, figures.join())
    assert.match(await text('.causes'), /KVM_REG_ARM_PSCI_VERSION/)
    assert.match(await text('.steps'), /Elect the baseline of the fleet/)
  })

  it('opens at the move its address names', async () => {
    await page.go(link('linux-5.10-max', 'linux-6.1-max'))
    assert.equal(await text('#reason h2'), title('linux-5.10-max', 'linux-6.1-max'))
    await page.go(link('linux-6.18-max', 'linux-6.12-max'))
    assert.match(await text('#reason'), /ID_AA64MMFR1_EL1|KVM_REG_ARM_PSCI_VERSION/)
    assert.match(await text('#reason .verdicts'), /strict, as it is.*strict, baseline.*qemu@11\.1, as it is/)
  })

  it('shows another VMM and the baseline by links, and keeps the move', async () => {
    await page.go(link('linux-7.2-max', 'linux-6.12-max'))
    await page.click('#reason .verdicts li:last-child a')
    await page.until(`document.querySelector('#choose-vmm').value === 'qemu@11.1'`)
    assert.equal(await text('#reason h2'), title('linux-7.2-max', 'linux-6.12-max'))
    assert.match(await page.ask('location.hash'), /vmm=qemu.*view=baseline/)
    assert.match(await text('.legend'), /opened by the baseline/)
    assert.match(await cell(), /opened by the baseline/)
  })

  it('says of each move what the command says', async () => {
    await page.go(addressOf('page.html'))
    await page.ask(`document.querySelector('#grid').focus()`)
    await page.press('Home')
    const found: string[] = []
    for (let step = 0; step < hosts.length; step++) {
      found.push(await cell())
      await page.press('ArrowRight')
    }
    assert.equal(new Set(found).size, hosts.length)
    for (const words of found) {
      assert.match(
        words,
        /^class \d .* to class \d .*: (moves|hosts of one class|stopped by \d+ obstacles?|the restore)/,
      )
    }
  })

  it('is one stop for the Tab key, in which arrows move and Escape closes', async () => {
    await page.go(addressOf('page.html'))
    await page.ask(`document.querySelector('.zoom button:last-child').focus()`)
    await page.press('Tab')
    assert.equal(await page.ask('document.activeElement.id'), 'grid')
    await page.press('ArrowDown')
    await page.press('ArrowRight')
    await page.press('ArrowRight')
    const hash = await page.ask<string>('location.hash')
    assert.match(hash, /from=\w+&to=\w+/)
    assert.ok(await page.ask(`document.querySelector('#reason').classList.contains('open')`))
    assert.match(await text('#reason h2'), /^Class \d → class \d$/)
    await page.press('Escape')
    assert.equal(await page.ask('location.hash'), '')
    assert.equal(await page.ask('document.activeElement.id'), 'grid')
    await page.press('Tab')
    assert.notEqual(await page.ask('document.activeElement.id'), 'grid')
  })

  it('chooses the move under the mouse', async () => {
    await page.go(addressOf('page.html'))
    await page.click('#grid')
    await page.until(`/from=/.test(location.hash)`)
    assert.match(await text('#reason h2'), /^Class/)
  })

  it('finds classes by host, CPU and kernel', async () => {
    for (const [query, count] of [
      ['QEMU', 5],
      ['linux-6.18', 1],
      ['javascript:', 1],
      ['nothing like it', 0],
    ] as const) {
      await page.go(`${addressOf('page.html')}#q=${encodeURIComponent(query)}`)
      assert.equal(await text('#found'), `${count} ${count === 1 ? 'class' : 'classes'}`)
      assert.equal(await page.ask(`document.querySelectorAll('#classes tbody tr').length`), count)
    }
    await page.go(addressOf('page.html'))
    await page.ask(`document.querySelector('#search').focus()`)
    await page.type('6.12')
    await page.until(`document.querySelector('#found').textContent === '1 class'`)
    assert.equal(await page.ask('location.hash'), '#q=6.12')
  })

  it('filters by obstacle', async () => {
    await page.go(addressOf('page.html'))
    await page.click('.bars button')
    const cause = await text('.bars .name')
    assert.equal(await page.ask(`document.querySelector('#choose-obstacle').value`), cause)
    assert.equal(await page.ask(`new URLSearchParams(location.hash.slice(1)).get('cause')`), cause)
    assert.equal(
      await page.ask(`document.querySelector('.bars button').getAttribute('aria-pressed')`),
      'true',
    )
  })

  it('lists classes, groups and what another kernel opens', async () => {
    await page.go(addressOf('page.html'))
    const newest = [classes.get('linux-6.18-max')!.number, classes.get('linux-7.2-max')!.number]
    const list = newest.toSorted((a, b) => a - b).join(', ')
    assert.ok((await text('#groups')).includes(`2 hosts of 2 classes: ${list}`))
    const { number } = classes.get('linux-6.12-max')!
    assert.ok((await text('#upgrades')).includes(`class ${number} as linux-6.18-max: opens `))
  })

  it('takes nothing a report says for anything but text', async () => {
    await page.go(link('linux-5.10-max', 'linux-6.1-max'))
    const body = await page.ask<string>(`document.body.textContent`)
    for (const one of hostile) assert.ok(body.includes(one), one)
    assert.equal(await page.ask('document.title'), 'Moves between 5 hosts')
    assert.equal(await page.ask(`document.querySelectorAll('img, svg, iframe').length`), 0)
    assert.equal(await page.ask(`document.querySelectorAll('script').length`), 2)
    assert.equal(
      await page.ask(`[...document.links].every((link) => link.getAttribute('href').startsWith('#'))`),
      true,
    )
  })

  it('prints the matrix and the chosen reasons', async () => {
    await page.go(link('linux-6.18-max', 'linux-6.12-max'))
    const pdf = await page.print()
    assert.equal(pdf.subarray(0, 5).toString(), '%PDF-')
    assert.ok(pdf.length > 20_000)
    // What the page becomes for paper, in dark mode too: light, no wider than a sheet, nothing folded.
    await page.ask(`void dispatchEvent(new Event('beforeprint'))`)
    await page.resize(720, 1000, 'dark', 'print')
    assert.equal(await page.ask(`getComputedStyle(document.body).backgroundColor`), 'rgb(255, 255, 255)')
    assert.equal(await page.ask(`document.documentElement.scrollWidth <= 720`), true)
    assert.equal(await page.ask(`document.querySelectorAll('.panel details:not([open])').length`), 0)
    await page.ask(`void dispatchEvent(new Event('afterprint'))`)
    await page.resize(1440, 900)
  })

  for (const scheme of ['light', 'dark'] as const) {
    it(`breaks no rule for accessible pages, ${scheme}`, async () => {
      await resize(1440, 900, scheme)
      await page.go(link('linux-7.2-max', 'linux-6.12-max', '&view=baseline'))
      assert.deepEqual(await violations(), [])
      await resize(390, 844, scheme)
      assert.deepEqual(await violations(), [])
      await resize(1440, 900)
    })
  }

  it('needs nothing but itself and breaks nothing', async () => {
    assert.equal(await page.ask(`performance.getEntriesByType('resource').length`), 0)
    assert.deepEqual(page.complaints, [])
  })
})

describe('the page of many classes', () => {
  for (const classes of [3, 15, 130, 1000]) {
    it(`shows ${classes} at every size`, async () => {
      const name = `${classes}.html`
      const file = join(folder, name)
      writeFileSync(file, fleetPage([manyClasses(classes)], `Moves of ${classes} classes`))
      if (classes <= 130) assert.ok(statSync(file).size < 2_000_000)
      await page.go(addressOf(name))
      for (const [width, height] of sizes) {
        await resize(width, height)
        assert.ok((await page.ask<number>('document.documentElement.scrollWidth')) <= width, `${width}`)
        const canvas = await page.ask<{ width: number; painted: number }>(`(() => {
          const canvas = document.querySelector('canvas')
          const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext('2d', { willReadFrequently: true })
          copy.drawImage(canvas, 0, 0)
          const { data } = copy.getImageData(0, 0, canvas.width, canvas.height)
          const colours = new Set()
          for (let at = 0; at < data.length; at += 4 * 97) colours.add(data[at] << 16 | data[at + 1] << 8 | data[at + 2])
          return { width: canvas.width, painted: colours.size }
        })()`)
        assert.ok(canvas.width > 300 && canvas.painted >= 4, JSON.stringify(canvas))
      }
      await page.ask(`document.querySelector('#grid').focus()`)
      await page.press('End')
      assert.match(await cell(), / to class /)
      if (classes === 130) assert.deepEqual(await violations(), [])
      assert.deepEqual(page.complaints, [])
    })
  }
})

describe('the page of a VMM that can elect no baseline', () => {
  it('shows the moves as they are, and says so, also where a link asks for those with the baseline', async () => {
    const fleet = manyClasses(15)
    delete fleet.elected
    writeFileSync(join(folder, 'plain.html'), fleetPage([fleet], 'Moves of 15 classes'))
    await page.go(`${addressOf('plain.html')}#view=baseline`)
    const chosen = await page.ask<string>(
      `[...document.querySelectorAll('input[type=radio]:checked')].map((radio) => radio.parentElement.textContent).join()`,
    )
    assert.match(chosen, /as it is/)
    assert.doesNotMatch(await text('.legend'), /opened by the baseline/)
    assert.doesNotMatch(await text('main'), /free movement, with the baseline/)
  })
})

describe('the page of a verdict', () => {
  it('gives the reasons for one pair, and breaks no rule', async () => {
    const file = join(folder, 'verdict.html')
    const pair = ['--from', 'linux-7.2-neoverse-n1', '--to', 'linux-6.12-neoverse-n1']
    const { status, error } = kvmArm64(['check', ...pair, '--vmm', 'qemu', '--both', '--html', file])
    assert.equal(status, 1, error)
    await page.go(addressOf('verdict.html'))
    assert.equal(await page.ask(`document.querySelectorAll('.panel').length`), 2)
    assert.match(await text('.panel'), /stopped by 1 obstacle/)
    assert.match(await text('.panel'), /KVM_REG_ARM_PSCI_VERSION/)
    assert.match(await text('.panel'), /kvm-psci-version=1\.1/)
    for (const [width, height] of sizes) {
      await resize(width, height)
      assert.ok((await page.ask<number>('document.documentElement.scrollWidth')) <= width)
    }
    assert.deepEqual(await violations(), [])
    assert.deepEqual(page.complaints, [])
  })
})
