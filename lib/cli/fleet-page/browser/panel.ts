/** The reasons for one move. */
import type { Obstacle, Pattern } from '../model/data.js'
import { kindOf, marks, verdictWords } from '../model/kinds.js'
import { type Reason, reasonsOf } from '../model/reasons.js'
import { count, make } from './dom.js'
import type { FleetView } from './fleet.js'

/** Registers of one reason that are shown at once; the others open on a click. */
const SHOWN = 4

/** A verdict with its mark. */
export function verdict(pattern: Pattern, obstacles: readonly Obstacle[]): HTMLElement {
  const kind = kindOf(pattern, obstacles)
  return make(
    'span',
    { class: `verdict ${kind}` },
    make('span', { class: 'mark', 'aria-hidden': 'true' }, marks[kind]),
    ` ${verdictWords(pattern, obstacles)}`,
  )
}

/** What stops a move and what its guest will see, the gravest first. */
export function reasons(pattern: Pattern, obstacles: readonly Obstacle[]): HTMLElement {
  const root = make('div', { class: 'reasons' })
  const found = reasonsOf(pattern.obstacles.map((index) => obstacles[index]!))
  let severity = ''
  for (const reason of found) {
    if (reason.severity !== severity) root.append(make('h3', {}, reason.severity))
    severity = reason.severity
    root.append(reasonItem(reason))
  }
  if (found.length === 0) root.append(make('p', {}, 'The guest sees no difference.'))
  if (pattern.unknown.length > 0) {
    root.append(
      make(
        'p',
        { class: 'note' },
        `The answer depends on what the reports do not say: ${pattern.unknown.join(', ')}.`,
      ),
    )
  }
  return root
}

function reasonItem({ stops, registers, meaning, remedy }: Reason): HTMLElement {
  const root = make('div', { class: `reason${stops ? ' stops' : ''}` })
  const rows = registers.map(({ subject, source, destination }) =>
    make(
      'li',
      {},
      make('span', { class: 'register' }, subject),
      make('span', { class: 'values' }, `${source} → ${destination}`),
    ),
  )
  root.append(make('ul', { class: 'registers' }, ...rows.slice(0, SHOWN)))
  const more = rows.slice(SHOWN)
  if (more.length > 0) {
    const list = make('ul', { class: 'registers' }, ...more)
    root.append(
      make(
        'details',
        {},
        make('summary', {}, `${count(more.length, 'more register')} with the same reason`),
        list,
      ),
    )
  }
  root.append(make('p', {}, meaning), make('p', { class: 'remedy' }, make('b', {}, 'Remedy: '), remedy))
  return root
}

/** The panel beside the matrix. */
export function panel(view: FleetView): HTMLElement {
  const root = make('aside', { class: 'panel', id: 'reason', 'aria-label': 'Reasons', tabindex: '-1' })
  const draw = () => {
    const { chosen } = view
    root.classList.toggle('open', chosen !== undefined)
    root.replaceChildren(...(chosen === undefined ? empty() : moveContent(view, chosen)))
    root.scrollTop = 0
  }
  view.onChange(draw)
  draw()
  return root
}

function empty(): Node[] {
  return [
    make('h2', {}, 'Choose a move'),
    make('p', {}, 'A cell of the matrix leads to its reasons: click it, or go there with the arrow keys.'),
  ]
}

function moveContent(view: FleetView, { from, to }: { from: number; to: number }): Node[] {
  const close = make('button', { type: 'button', class: 'close', 'aria-label': 'Close the reasons' }, '✕')
  close.addEventListener('click', () => {
    view.update({ from: '', to: '' })
    document.getElementById('grid')?.focus()
  })
  const pattern = view.pattern(from, to)
  const back = view.pattern(to, from)
  const title = make('h2', {}, `Class ${from + 1} → class ${to + 1}`)
  if (pattern === undefined) {
    return [close, title, classLine(view, 'Class', from), make('p', {}, uncomparedText(view, from, to))]
  }
  return [
    close,
    title,
    make('dl', { class: 'ends' }, ...classLines(view, 'From', from), ...classLines(view, 'To', to)),
    verdicts(view, from, to),
    ...(back === undefined
      ? []
      : [make('p', { class: 'back' }, wayBack(view, from, to), ' ', verdict(back, view.data.obstacles))]),
    reasons(pattern, view.data.obstacles),
  ]
}

function uncomparedText({ judgement }: FleetView, from: number, to: number): string {
  if (from !== to) return 'This move was not compared.'
  return judgement.bound.includes(from)
    ? 'Hosts of one class are alike, but a VM of this class cannot move: choose a move to another class for the reason.'
    : 'Hosts of one class are alike: a VM moves freely among them.'
}

function classText(view: FleetView, index: number): string {
  const { cpu, releases, hostCount } = view.data.classes[index]!
  return `${cpu}, ${releases[0] ?? 'unknown kernel'}${releases.length > 1 ? ' …' : ''}, ${count(hostCount, 'host')}`
}

function classLine(view: FleetView, name: string, index: number): HTMLElement {
  return make('dl', { class: 'ends' }, ...classLines(view, name, index))
}

function classLines(view: FleetView, name: string, index: number): Node[] {
  const { digest } = view.data.classes[index]!
  const line = view.lines[view.lineOf(index)] ?? [index]
  const alike = line.length - 1
  return [
    make('dt', {}, name),
    make(
      'dd',
      {},
      classText(view, index),
      make(
        'span',
        { class: 'note' },
        ` ${digest}${alike > 0 ? `; ${count(alike, 'class', 'classes')} alike` : ''}`,
      ),
    ),
  ]
}

function wayBack(view: FleetView, from: number, to: number): HTMLElement {
  const { digest: back } = view.data.classes[to]!
  const { digest: there } = view.data.classes[from]!
  return make('a', { href: view.address({ ...view.state, from: back, to: there }) }, 'Way back:')
}

/** The same move under each VMM, as it is and with the baseline. */
function verdicts(view: FleetView, from: number, to: number): HTMLElement {
  const rows = view.data.vmms.flatMap((vmm) =>
    ([false, true] as const).flatMap((elected) => {
      const judgement = elected ? vmm.elected : vmm.asIs
      const pattern = judgement && view.pattern(from, to, judgement)
      if (pattern === undefined) return []
      const isShown = vmm.vmm === view.state.vmm && elected === view.isElected
      const text = `${view.data.vmms.length > 1 ? `${vmm.vmm}, ` : ''}${elected ? 'baseline' : 'as it is'}`
      const link = make('a', { href: view.address({ ...view.state, vmm: vmm.vmm, elected }) }, text)
      if (isShown) link.setAttribute('aria-current', 'true')
      return [make('li', {}, link, verdict(pattern, view.data.obstacles))]
    }),
  )
  return make('ul', { class: 'verdicts' }, ...rows)
}
