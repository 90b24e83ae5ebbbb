/** Fills the page from the data in it. */
import type { PageData } from '../model/data.js'
import { controls, themeChoice } from './controls.js'
import { count, make } from './dom.js'
import { FleetView } from './fleet.js'
import { lists } from './lists.js'
import { matrix } from './matrix.js'
import { overview } from './overview.js'
import { pairPage } from './pair.js'
import { panel } from './panel.js'

async function pageData(): Promise<PageData> {
  const bytes = Uint8Array.from(atob(document.getElementById('data')!.textContent), (one) =>
    one.charCodeAt(0),
  )
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('deflate-raw'))
  return (await new Response(stream).json()) as PageData
}

function facts({ data }: FleetView): string {
  const { hostCount, classes, left, faulty } = data
  return [
    `${count(hostCount, 'host')} in ${count(classes.length + left.classes, 'class', 'classes')}`,
    left.classes > 0 &&
      `${count(left.classes, 'class', 'classes')} with ${count(left.hostCount, 'host')} were not compared`,
    faulty > 0 && `${count(faulty, 'report')} could not be read`,
    data.vmms.length === 1 && `judged by the rules “${data.vmms[0]!.vmm}”`,
  ]
    .filter((fact) => fact !== false)
    .join('; ')
}

function showFleet(view: FleetView): void {
  const top = document.querySelector('.top')!
  top.append(make('p', { id: 'facts' }, facts(view)), themeChoice(view))
  const main = make(
    'main',
    {},
    overview(view),
    controls(view),
    make('div', { class: 'layout' }, matrix(view), panel(view)),
    lists(view),
  )
  document.getElementById('page')!.append(main)
  addEventListener('keydown', (event) => {
    if (event.key === 'Escape' && view.chosen !== undefined) {
      view.update({ from: '', to: '' })
      document.getElementById('grid')!.focus({ preventScroll: true })
    }
  })
}

// Nobody can open them on paper.
addEventListener('beforeprint', () => {
  for (const details of document.querySelectorAll<HTMLDetailsElement>('.panel details')) details.open = true
})

const data = await pageData()
if (data.kind === 'fleet') showFleet(new FleetView(data))
else document.getElementById('page')!.append(pairPage(data))
document.documentElement.dataset['ready'] = 'yes'
