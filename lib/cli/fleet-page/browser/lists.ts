/** The lists below the matrix. */
import { neighbours } from '../model/summary.js'
import { count, make, number } from './dom.js'
import type { FleetView } from './fleet.js'

/** Rows of a table that are drawn at once. */
const ROWS = 150
/** Host names in a closed list. */
const NAMES = 3

export function lists(view: FleetView): HTMLElement {
  const root = make('div', { class: 'lists' })
  let drawn = ''
  const draw = () => {
    const key = JSON.stringify([view.state.vmm, view.state.elected, view.state.query])
    if (key === drawn) return
    drawn = key
    root.replaceChildren(
      classes(view),
      make('div', { class: 'pair' }, groups(view), divides(view), upgrades(view)),
    )
  }
  view.onChange(draw)
  draw()
  return root
}

function classes(view: FleetView): HTMLElement {
  const { data, found } = view
  const shown = [...data.classes.keys()].filter((index) => found?.has(index) ?? true)
  const head = make('tr')
  for (const [title, kind] of [
    ['Class', 'n'],
    ['Hosts', 'n'],
    ['CPU', ''],
    ['Kernel', ''],
    ['PSCI', ''],
    ['Can go to', 'n'],
    ['Can take from', 'n'],
    ['Names', 'names'],
    ['Answered by', ''],
    ['First read', ''],
  ] as const)
    head.append(make('th', { scope: 'col', class: kind }, title))
  const body = make('tbody')
  const table = make('table', { id: 'classes' }, make('thead', {}, head), body)
  const draw = (indices: readonly number[]) => body.append(...indices.map((index) => classRow(view, index)))
  draw(shown.slice(0, ROWS))
  const section = make(
    'section',
    {},
    make('h2', {}, found === undefined ? 'Classes' : `Classes found: ${number(shown.length)}`),
    make('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': 'Classes' }, table),
  )
  if (shown.length > ROWS) {
    const more = make('button', { type: 'button' }, `Show ${number(shown.length - ROWS)} more`)
    more.addEventListener('click', () => {
      draw(shown.slice(ROWS))
      more.remove()
    })
    section.append(more)
  }
  return section
}

function classRow(view: FleetView, index: number): HTMLElement {
  const { data, judgement } = view
  const one = data.classes[index]!
  const { to, from } = neighbours(data.classes, data.patterns, judgement, index)
  return make(
    'tr',
    {},
    make('th', { scope: 'row', class: 'n', title: one.digest }, number(index + 1)),
    make('td', { class: 'n' }, number(one.hostCount)),
    make('td', {}, one.cpu),
    make('td', {}, one.releases.join(', ')),
    make('td', {}, one.psci),
    make('td', { class: 'n' }, number(to)),
    make('td', { class: 'n' }, number(from)),
    make('td', { class: 'names' }, names(one.names, view.state.query)),
    make('td', {}, one.answeredBy),
    make('td', { class: 'names' }, one.first),
  )
}

/** All names of hosts, the first few at once. */
function names(all: readonly string[], query: string): Node {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean)
  const matching =
    words.length === 0 ? [] : all.filter((name) => words.some((word) => name.toLowerCase().includes(word)))
  const first = (matching.length > 0 ? matching : all).slice(0, NAMES)
  if (all.length <= NAMES) return document.createTextNode(all.join(', '))
  const details = make('details', {}, make('summary', {}, `${first.join(', ')} … all ${number(all.length)}`))
  details.addEventListener(
    'toggle',
    () =>
      details.append(
        make(
          'div',
          { class: 'all', tabindex: '0', role: 'group', 'aria-label': 'All hosts' },
          all.join(', '),
        ),
      ),
    { once: true },
  )
  return details
}

function listSection(title: string, id: string, texts: readonly string[]): HTMLElement {
  const items = texts.length === 0 ? ['none'] : texts
  return make(
    'section',
    { id },
    make('h2', {}, title),
    make('ul', {}, ...items.map((text) => make('li', {}, text))),
  )
}

function classNumbers(indices: readonly number[]): string {
  return indices.map((index) => index + 1).join(', ')
}

function groups({ judgement, isElected }: FleetView): HTMLElement {
  const several = judgement.groups.filter((group) => group.classes.length > 1)
  const texts = several.map(
    (group) =>
      `${count(group.hostCount, 'host')} of ${count(group.classes.length, 'class', 'classes')}: ${classNumbers(group.classes)}`,
  )
  return listSection(`Groups with free movement${isElected ? ', with the baseline' : ''}`, 'groups', texts)
}

function divides({ vmm }: FleetView): HTMLElement {
  const texts = vmm.divides.map(({ subject, pairs, hostCount }) => {
    const text = pairs.map(([one, other]) => `${one + 1} and ${other + 1}`).join('; ')
    return `${subject} (${count(hostCount, 'host')}): ${text}`
  })
  return listSection('Kept apart by one register', 'divides', texts)
}

function upgrades({ vmm }: FleetView): HTMLElement | string {
  if (vmm.upgrades.length === 0) return ''
  const listed = (moves: (typeof vmm.upgrades)[number]['opens']) =>
    moves.map((move) => `${move.direction} ${move.class + 1}`).join(', ') || 'nothing'
  const texts = vmm.upgrades.map(
    ({ class: index, upgrade, opens, closes }) =>
      `class ${index + 1} as ${upgrade}: opens ${listed(opens)}; closes ${listed(closes)}`,
  )
  return listSection('What if', 'upgrades', texts)
}
