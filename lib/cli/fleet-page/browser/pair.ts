/** The page of `check`: the panel of a fleet's page for one pair of hosts. */
import type { PairData } from '../model/data.js'
import { make } from './dom.js'
import { reasons, verdict } from './panel.js'

export function pairPage({ moves, obstacles }: PairData): HTMLElement {
  const root = make('main', { class: 'moves' })
  for (const move of moves) {
    root.append(
      make(
        'section',
        { class: 'panel open' },
        make('h2', {}, `${move.from} → ${move.to}`),
        make('p', { class: 'lead' }, verdict(move, obstacles)),
        make('ul', { class: 'notes' }, ...move.notes.map((note) => make('li', {}, note))),
        reasons(move, obstacles),
      ),
    )
  }
  return root
}
