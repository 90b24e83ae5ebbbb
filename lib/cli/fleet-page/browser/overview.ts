/** The head of a fleet's page: how far VMs can go, what stops most of the others, and what to do first. */
import { causes, type Reach, reach, type Step, steps } from '../model/summary.js'
import { bar, count, make, number, percent } from './dom.js'
import type { FleetView } from './fleet.js'

const CAUSES = 5
const STEPS = 3

export function overview(view: FleetView): HTMLElement {
  const root = make('section', { class: 'overview', 'aria-label': 'Overview' })
  let drawn = ''
  const draw = () => {
    // Only the VMM, the chosen cause and the side shown change what is here.
    const key = JSON.stringify([view.state.vmm, view.state.cause, view.state.elected])
    if (key === drawn) return
    drawn = key
    root.replaceChildren(reachCard(view), causesCard(view), stepsCard(view))
  }
  view.onChange(draw)
  draw()
  return root
}

function card(name: string, title: string, ...content: (Node | false)[]): HTMLElement {
  return make('section', { class: `card ${name}` }, make('h2', {}, title), ...content)
}

/** `57`, `5.3`: as exact as it is interesting. */
function mean(value: number): string {
  return number(value < 10 ? Math.round(value * 10) / 10 : Math.round(value))
}

function reachCard({ data, vmm }: FleetView): HTMLElement {
  const asIs = reach(data, vmm.asIs)
  const elected = vmm.elected && reach(data, vmm.elected)
  return card(
    'reach',
    'Where a VM can go, on average',
    figure('As it is', 'free', asIs),
    elected === undefined
      ? make('p', { class: 'note' }, `With the baseline: ${vmm.election}`)
      : figure('With the baseline', 'opened', elected),
  )
}

function figure(name: string, kind: string, of: Reach): HTMLElement {
  return make(
    'div',
    { class: 'figure' },
    make('p', { class: 'label' }, name),
    make('p', { class: 'big' }, mean(of.mean)),
    make('p', {}, `of ${number(of.others)} other hosts`),
    bar(of.pairs === 0 ? 0 : of.possible / of.pairs, kind),
    make('p', { class: 'note' }, `${percent(of.pairs === 0 ? 1 : of.possible / of.pairs)} of all moves`),
    of.doubtful > 0 &&
      make(
        'p',
        { class: 'note' },
        `${percent(of.doubtful / of.possible)} of these only as far as the reports say`,
      ),
    make('p', { class: 'note' }, `largest free group: ${count(of.largestGroup, 'host')}`),
  )
}

function causesCard(view: FleetView): HTMLElement {
  const all = causes(view.data, view.vmm.asIs.moves)
  const shown = all.slice(0, CAUSES)
  if (shown.length === 0)
    return card('causes', 'What stops moves', make('p', {}, 'Nothing: every VM can go anywhere.'))
  const list = make('ol', { class: 'bars' })
  for (const { cause, share, alone } of shown) {
    const isChosen = view.state.cause === cause
    const button = make(
      'button',
      {
        type: 'button',
        class: 'row',
        'aria-pressed': `${isChosen}`,
        title:
          alone > 0 ? `alone it stops ${count(alone, 'move')} between hosts` : 'it never stops a move alone',
      },
      make('span', { class: 'name' }, cause),
      make('span', { class: 'value' }, percent(share)),
      bar(share, 'near'),
    )
    button.addEventListener('click', () => view.update({ cause: isChosen ? '' : cause }))
    list.append(make('li', {}, button))
  }
  const { explained } = shown.at(-1)!
  const rest = all.length - shown.length
  const text =
    rest === 0
      ? 'Nothing else stops a move. A move may have several causes.'
      : `These ${shown.length} of ${all.length} causes are all that stops ${percent(explained)} of the stopped moves.`
  return card('causes', 'What stops moves', list, make('p', { class: 'note' }, text))
}

function stepsCard({ data, vmm }: FleetView): HTMLElement {
  const { possible, pairs } = reach(data, vmm.asIs)
  const found = steps(data, vmm).slice(0, STEPS)
  if (found.length === 0) {
    const text =
      possible === pairs
        ? 'Nothing: every VM can go anywhere.'
        : 'No single step opens a move: most need another host.'
    return card('steps', 'What to do first', make('p', {}, text))
  }
  const list = make('ol', { class: 'steps' })
  for (const step of found) list.append(stepItem(step, pairs))
  return card(
    'steps',
    'What to do first',
    list,
    make('p', { class: 'note' }, 'Each by itself, as a part of all moves between hosts.'),
  )
}

function stepItem({ title, how, gain }: Step, pairs: number): HTMLElement {
  return make(
    'li',
    {},
    make(
      'p',
      { class: 'title' },
      make('span', { class: 'name' }, title),
      make(
        'span',
        { class: 'gain', title: `${count(gain, 'move')} between hosts` },
        `opens ${percent(gain / pairs)}`,
      ),
    ),
    make('p', { class: 'note' }, how),
  )
}
