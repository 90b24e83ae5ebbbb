/** The controls above the matrix: what is shown, and what is sought. */
import { causes } from '../model/summary.js'
import type { ViewState } from '../model/address.js'
import { count, make } from './dom.js'
import type { FleetView } from './fleet.js'

export function controls(view: FleetView): HTMLElement {
  const { data } = view
  const root = make('form', { class: 'controls', role: 'search', 'aria-label': 'What is shown' })
  root.addEventListener('submit', (event) => event.preventDefault())

  const shown = choice('Moves', ['as it is', 'with the baseline'], (index) =>
    view.update({ elected: index === 1 }),
  )
  const vmm = select('VMM', (value) => view.update({ vmm: value }))
  vmm.show(data.vmms.map((one) => [one.vmm, one.vmm]))
  const severity = select('Severity', (value) => view.update({ severity: value }))
  severity.show([['', 'any'], ...unique(data.obstacles.map((one) => one.severity)).map(pair)])
  const cause = select('Obstacle', (value) => view.update({ cause: value }))
  const query = make('input', {
    type: 'search',
    id: 'search',
    placeholder: 'host, class, CPU or kernel',
    'aria-describedby': 'found',
  })
  query.addEventListener('input', () => view.update({ query: query.value }))
  query.addEventListener('keydown', (event) => {
    const [first] = view.found ?? []
    if (event.key !== 'Enter' || first === undefined) return
    const other = view.vmm.order.find((one) => one !== first)
    if (other !== undefined) view.choose(first, other)
  })
  const found = make('span', { id: 'found', role: 'status', class: 'note' })
  const grouped = make('input', { type: 'checkbox', id: 'grouped' })
  grouped.addEventListener('change', () => view.update({ grouped: grouped.checked }))
  const groupedLabel = make(
    'label',
    { for: 'grouped', class: 'check' },
    grouped,
    'Join classes that move alike',
  )

  root.append(
    shown.element,
    ...(data.vmms.length > 1 ? [vmm.element] : []),
    make('div', { class: 'field wide' }, make('label', { for: 'search' }, 'Search'), query, found),
    severity.element,
    cause.element,
    groupedLabel,
  )

  let drawn = ''
  const draw = () => {
    const { state } = view
    shown.show(view.isElected ? 1 : 0, view.vmm.elected === undefined)
    vmm.control.value = state.vmm
    if (drawn !== state.vmm) {
      const used = causes(data, view.vmm.asIs.moves).map((one) => one.cause)
      const others = unique(data.obstacles.map((one) => one.cause)).filter((one) => !used.includes(one))
      cause.show([['', 'any'], ...[...used, ...others].map(pair)])
      drawn = state.vmm
    }
    severity.control.value = state.severity
    cause.control.value = state.cause
    if (query.value !== state.query) query.value = state.query
    found.textContent = view.found === undefined ? '' : count(view.found.size, 'class', 'classes')
    grouped.checked = view.isGrouped
    groupedLabel.hidden =
      view.lines.length === data.classes.length && !view.isGrouped && data.classes.length < 10
  }
  view.onChange(draw)
  draw()
  return root
}

function select(name: string, change: (value: string) => void) {
  const id = `choose-${name.toLowerCase()}`
  const control = make('select', { id })
  control.addEventListener('change', () => change(control.value))
  return {
    element: make('div', { class: 'field' }, make('label', { for: id }, name), control),
    control,
    show: (entries: readonly (readonly [string, string])[]) => {
      control.replaceChildren(...entries.map(([value, text]) => make('option', { value }, text)))
    },
  }
}

/** A few alternatives side by side. */
export function choice(name: string, texts: readonly string[], change: (index: number) => void) {
  const legend = make('legend', {}, name)
  const id = name.toLowerCase()
  const radios = texts.map((_, index) => {
    const radio = make('input', { type: 'radio', id: `${id}-${index}`, value: `${index}` })
    radio.name = id
    radio.addEventListener('change', () => change(index))
    return radio
  })
  const labels = texts.map((text, index) => make('label', { for: `${id}-${index}` }, text))
  const buttons = make('div', { class: 'segments' })
  for (const [index, radio] of radios.entries()) buttons.append(radio, labels[index]!)
  return {
    element: make('fieldset', { class: 'field' }, legend, buttons),
    show: (chosen: number, onlyFirst: boolean) => {
      for (const [index, radio] of radios.entries()) {
        radio.checked = index === chosen
        radio.disabled = onlyFirst && index > 0
      }
    },
  }
}

const themes: readonly ViewState['theme'][] = ['', 'light', 'dark']

/** The colours: those of the system, or one's own choice. */
export function themeChoice(view: {
  state: { theme: ViewState['theme'] }
  update(change: { theme: ViewState['theme'] }): void
  onChange(listener: () => void): void
}): HTMLElement {
  const colours = choice('Colours', ['system', 'light', 'dark'], (index) =>
    view.update({ theme: themes[index]! }),
  )
  const show = () => {
    const { theme } = view.state
    if (theme === '') delete document.documentElement.dataset['theme']
    else document.documentElement.dataset['theme'] = theme
    colours.show(themes.indexOf(theme), false)
  }
  view.onChange(show)
  show()
  colours.element.classList.add('theme')
  return colours.element
}

function unique(texts: readonly string[]): string[] {
  return [...new Set(texts)]
}

function pair(text: string): [string, string] {
  return [text, text]
}
