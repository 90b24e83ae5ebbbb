/**
 * The matrix of moves. It is drawn on a canvas, so that a thousand classes are as quick as three; for the keyboard and for those who
 * do not see it, it is a grid in which only the current cell exists.
 */
import { isDoubtful, type Kind, kindWords, marks, verdictWords } from '../model/kinds.js'
import { count, make, number } from './dom.js'
import type { Cell, FleetView } from './fleet.js'

/** In CSS pixels. */
const LARGEST_CELL = 44
/** Cells from this size on have a mark; from the larger one on, rows have labels of their own. */
const MARKED = 13
const LABELLED = 9.5
/** Above this number of pixels, the canvas would cost more memory than a phone has. */
const HIGHEST = 4000

/** What fits between the margins of A4 and of US Letter: at `beforeprint` a browser has not laid out the paper yet. */
const PAPER = 680

const kinds: readonly Kind[] = ['free', 'changed', 'near', 'stopped', 'broken', 'none']
type Colour = Kind | 'opened' | 'ink' | 'soft' | 'line' | 'paper' | 'on-free' | 'on-stopped'

export function matrix(view: FleetView): HTMLElement {
  return new Matrix(view).element
}

class Matrix {
  readonly element: HTMLElement
  readonly #view: FleetView
  readonly #scroller = make('div', { class: 'scroller' })
  readonly #sheet = make('div', { class: 'sheet' })
  readonly #canvas = make('canvas', { 'aria-hidden': 'true' })
  readonly #grid = make('div', {
    id: 'grid',
    role: 'grid',
    tabindex: '0',
    'aria-label': 'Who can move where',
  })
  readonly #row = make('div', { role: 'row' })
  readonly #cell = make('div', { role: 'gridcell', id: 'cell', class: 'current' })
  readonly #tip = make('div', { class: 'tip', 'aria-hidden': 'true' })
  readonly #probe = make('span', { class: 'probe', 'aria-hidden': 'true' })
  #place = { row: 0, column: 0 }
  #zoom = 1
  #size = 0
  #gutter = 0
  /** Each row has a label of its own. */
  #isLabelled = false
  #head = 0
  #colours = new Map<Colour, string>()

  constructor(view: FleetView) {
    this.#view = view
    this.#row.append(this.#cell)
    this.#grid.append(this.#row)
    this.#sheet.append(this.#canvas, this.#grid, this.#tip)
    this.#scroller.append(this.#sheet)
    this.element = make(
      'section',
      { class: 'matrix', 'aria-label': 'Matrix of moves' },
      make('div', { class: 'matrix-head' }, legend(view), this.#zoomButtons()),
      this.#scroller,
      this.#probe,
    )
    this.#listen()
  }

  #listen(): void {
    const view = this.#view
    view.onChange(() => {
      this.#follow()
      this.draw()
    })
    new ResizeObserver(() => this.draw()).observe(this.element)
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.draw())
    this.#scroller.addEventListener('scroll', () => this.#paint())
    this.#grid.addEventListener('keydown', (event) => this.#key(event))
    for (const event of ['focus', 'blur']) this.#grid.addEventListener(event, () => this.draw())
    this.#grid.addEventListener('click', (event) => {
      const place = this.#placeAt(event)
      if (place === undefined) return
      this.#go(place)
    })
    this.#grid.addEventListener('mousemove', (event) => this.#hover(this.#placeAt(event)))
    this.#grid.addEventListener('mouseleave', () => this.#hover(undefined))
    // Print the whole matrix in light colours.
    addEventListener('beforeprint', () => {
      this.#zoom = 1
      this.#scroller.style.width = `${PAPER}px`
      document.documentElement.classList.add('printing')
      this.draw()
    })
    addEventListener('afterprint', () => {
      this.#scroller.style.width = ''
      document.documentElement.classList.remove('printing')
      this.draw()
    })
    this.#follow()
  }

  #zoomButtons(): HTMLElement {
    const button = (text: string, name: string, factor: number) => {
      const made = make('button', { type: 'button', 'aria-label': name }, text)
      made.addEventListener('click', () => {
        this.#zoom = factor === 0 ? 1 : Math.min(64, Math.max(1, this.#zoom * factor))
        this.draw()
        this.#reveal()
      })
      return made
    }
    return make(
      'div',
      { class: 'zoom', role: 'group', 'aria-label': 'Size of the matrix' },
      button('−', 'Smaller', 1 / 2),
      button('fit', 'Fit the page', 0),
      button('+', 'Larger', 2),
    )
  }

  /** Takes over the chosen move as the current cell. */
  #follow(): void {
    const { chosen, lines } = this.#view
    if (chosen === undefined) {
      const last = lines.length - 1
      this.#place = { row: Math.min(this.#place.row, last), column: Math.min(this.#place.column, last) }
      return
    }
    this.#place = { row: this.#view.lineOf(chosen.from), column: this.#view.lineOf(chosen.to) }
  }

  #key(event: KeyboardEvent): void {
    const last = this.#view.lines.length - 1
    const { row, column } = this.#place
    const far = Math.max(1, Math.round(last / 10))
    const places: Readonly<Record<string, [number, number]>> = {
      ArrowUp: [row - 1, column],
      ArrowDown: [row + 1, column],
      ArrowLeft: [row, column - 1],
      ArrowRight: [row, column + 1],
      PageUp: [row - far, column],
      PageDown: [row + far, column],
      Home: event.ctrlKey ? [0, 0] : [row, 0],
      End: event.ctrlKey ? [last, last] : [row, last],
      Enter: [row, column],
      ' ': [row, column],
    }
    const place = places[event.key]
    if (place === undefined || event.altKey || event.metaKey) return
    event.preventDefault()
    const within = (value: number) => Math.min(last, Math.max(0, value))
    this.#go({ row: within(place[0]), column: within(place[1]) })
  }

  #go(place: { row: number; column: number }): void {
    this.#place = place
    const { from, to } = this.#view.moveAt(place.row, place.column)
    this.#view.choose(from, to)
    this.#place = place
    this.#reveal()
  }

  #placeAt(event: MouseEvent): { row: number; column: number } | undefined {
    const { left, top } = this.#grid.getBoundingClientRect()
    const column = Math.floor((event.clientX - left) / this.#size)
    const row = Math.floor((event.clientY - top) / this.#size)
    const last = this.#view.lines.length - 1
    return row < 0 || column < 0 || row > last || column > last ? undefined : { row, column }
  }

  #hover(place: { row: number; column: number } | undefined): void {
    this.#tip.hidden = place === undefined
    if (place === undefined) return
    this.#tip.textContent = this.#words(place.row, place.column)
    const [x, y] = [this.#gutter + (place.column + 1) * this.#size, this.#head + (place.row + 1) * this.#size]
    const isRight = place.column > this.#view.lines.length / 2
    this.#tip.style.left = isRight ? 'auto' : `${x + 6}px`
    this.#tip.style.right = isRight ? `${this.#sheet.clientWidth - x + this.#size + 6}px` : 'auto'
    this.#tip.style.top = `${y + 4}px`
  }

  #words(row: number, column: number): string {
    const view = this.#view
    const { from, to } = view.moveAt(row, column)
    const pattern = view.pattern(from, to)
    const name = (line: number, index: number) => {
      const { cpu, releases } = view.data.classes[index]!
      const alike = view.lines[line]!.length - 1
      return `class ${index + 1}${alike > 0 ? ` and ${alike} alike` : ''} (${cpu}, ${releases[0] ?? ''})`
    }
    const words =
      pattern === undefined
        ? from === to
          ? 'hosts of one class'
          : 'not compared'
        : verdictWords(pattern, view.data.obstacles)
    const opened = view.cell(row, column).isOpened ? ', opened by the baseline' : ''
    return `${name(row, from)} to ${name(column, to)}: ${words}${opened}`
  }

  /** Describes the current cell to those who do not see it. */
  #announce(): void {
    const { lines } = this.#view
    const { row, column } = this.#place
    this.#grid.setAttribute('aria-rowcount', `${lines.length}`)
    this.#grid.setAttribute('aria-colcount', `${lines.length}`)
    this.#row.setAttribute('aria-rowindex', `${row + 1}`)
    this.#cell.setAttribute('aria-colindex', `${column + 1}`)
    this.#cell.setAttribute('aria-label', this.#words(row, column))
    this.#cell.setAttribute('aria-selected', `${this.#view.chosen !== undefined}`)
    this.#grid.setAttribute('aria-activedescendant', 'cell')
  }

  #reveal(): void {
    this.#cell.scrollIntoView({ block: 'nearest', inline: 'nearest' })
  }

  draw(): void {
    const { lines } = this.#view
    const width = this.#scroller.clientWidth
    if (width === 0) return
    const size = lines.length
    const isNarrow = width < 560
    const labelled = isNarrow ? 30 : Math.min(300, width * 0.36)
    const fits = (gutter: number) => Math.min(LARGEST_CELL, (width - gutter - 1) / size)
    const roomy = fits(labelled)
    this.#isLabelled = roomy >= LABELLED
    this.#gutter = this.#isLabelled ? labelled : isNarrow ? 0 : Math.min(150, width * 0.2)
    const fitting = fits(this.#gutter)
    this.#size = Math.min(LARGEST_CELL, fitting * this.#zoom)
    if (this.#size >= 3 && this.#zoom > 1) this.#size = Math.round(this.#size)
    this.#head = !this.#isLabelled ? 6 : this.#size >= 22 || size < 10 ? 22 : 30
    const [wide, high] = [this.#gutter + size * this.#size, this.#head + size * this.#size]
    this.#sheet.style.width = `${wide}px`
    this.#sheet.style.height = `${high}px`
    this.#scroller.classList.toggle('zoomed', this.#zoom > 1)
    Object.assign(this.#grid.style, {
      left: `${this.#gutter}px`,
      top: `${this.#head}px`,
      width: `${size * this.#size}px`,
      height: `${size * this.#size}px`,
    })
    const { row, column } = this.#place
    const cell = Math.max(this.#size, 7)
    const inset = (cell - this.#size) / 2
    Object.assign(this.#cell.style, {
      left: `${column * this.#size - inset}px`,
      top: `${row * this.#size - inset}px`,
      width: `${cell}px`,
      height: `${cell}px`,
    })
    this.#announce()
    this.#readColours()
    this.#paint()
  }

  #readColours(): void {
    this.#colours = new Map()
    for (const name of [
      ...kinds,
      'opened',
      'ink',
      'soft',
      'line',
      'paper',
      'on-free',
      'on-stopped',
    ] as const) {
      this.#probe.style.color = `var(--${name})`
      this.#colours.set(name, getComputedStyle(this.#probe).color)
    }
  }

  #colour(name: Colour): string {
    return this.#colours.get(name)!
  }

  /** Paints the part of the sheet that is to be seen. */
  #paint(): void {
    const { scrollLeft, scrollTop, clientWidth } = this.#scroller
    const clientHeight = Math.min(this.#scroller.clientHeight, HIGHEST)
    const scale = Math.max(1, Math.min(devicePixelRatio, 3))
    this.#canvas.width = Math.round(clientWidth * scale)
    this.#canvas.height = Math.round(clientHeight * scale)
    Object.assign(this.#canvas.style, { width: `${clientWidth}px`, height: `${clientHeight}px` })
    const to = this.#canvas.getContext('2d')!
    to.scale(scale, scale)
    const last = this.#view.lines.length - 1
    const within = (value: number) => Math.min(last, Math.max(0, Math.floor(value)))
    const [left, top] = [this.#gutter - scrollLeft, this.#head - scrollTop]
    const rows = [
      within((scrollTop - this.#head) / this.#size),
      within((clientHeight - top) / this.#size),
    ] as const
    const columns = [
      within((scrollLeft - this.#gutter) / this.#size),
      within((clientWidth - left) / this.#size),
    ] as const
    to.save()
    to.beginPath()
    to.rect(this.#gutter, this.#head, clientWidth, clientHeight)
    to.clip()
    if (this.#size < 3) this.#paintPixels(to, left, top)
    else
      for (let row = rows[0]; row <= rows[1]; row++)
        for (let column = columns[0]; column <= columns[1]; column++)
          this.#paintCell(
            to,
            left + column * this.#size,
            top + row * this.#size,
            this.#view.cell(row, column),
          )
    to.restore()
    this.#paintLabels(to, { left, top, rows, columns })
  }

  /** One pixel for each cell, scaled: a browser averages them if they are smaller than its own. */
  #paintPixels(to: CanvasRenderingContext2D, left: number, top: number): void {
    const size = this.#view.lines.length
    const image = new OffscreenCanvas(size, size)
    const pixels = image.getContext('2d')!
    const data = pixels.createImageData(size, size)
    const bytes = new Map<Colour, number[]>()
    for (const [name, colour] of this.#colours) bytes.set(name, colour.match(/[\d.]+/g)!.map(Number))
    const paper = bytes.get('paper')!
    let at = 0
    for (let row = 0; row < size; row++) {
      for (let column = 0; column < size; column++) {
        const cell = this.#view.cell(row, column)
        const [red, green, blue] = bytes.get(colourOf(cell))!
        const share = cell.isDim ? 0.18 : 1
        data.data[at++] = red! * share + paper[0]! * (1 - share)
        data.data[at++] = green! * share + paper[1]! * (1 - share)
        data.data[at++] = blue! * share + paper[2]! * (1 - share)
        data.data[at++] = 255
      }
    }
    pixels.putImageData(data, 0, 0)
    to.imageSmoothingEnabled = this.#size * devicePixelRatio < 1
    to.imageSmoothingQuality = 'high'
    to.drawImage(image, left, top, size * this.#size, size * this.#size)
  }

  #paintCell(to: CanvasRenderingContext2D, x: number, y: number, cell: Cell): void {
    const size = this.#size
    const gap = size >= 8 ? 1 : size >= 5 ? 0.5 : 0
    const inner = size - gap
    to.globalAlpha = cell.isDim ? 0.18 : 1
    to.fillStyle = this.#colour(colourOf(cell))
    to.fillRect(x, y, inner, inner)
    const isDark = cell.kind === 'free' || cell.kind === 'broken' || cell.isOpened
    const ink = this.#colour(isDark ? 'on-free' : 'on-stopped')
    if (size >= MARKED) {
      to.fillStyle = ink
      to.textAlign = 'center'
      to.textBaseline = 'middle'
      to.font = `${cell.kind === 'near' || cell.isOpened ? 600 : 400} ${Math.min(15, size * 0.62)}px system-ui, sans-serif`
      if (cell.kind !== 'stopped')
        to.fillText(
          `${cell.isOpened ? '+' : marks[cell.kind]}${cell.isDoubtful ? '?' : ''}`,
          x + inner / 2,
          y + inner / 2 + 0.5,
        )
      else {
        to.globalAlpha *= 0.38
        to.fillText(marks.stopped, x + inner / 2, y + inner / 2 + 0.5)
      }
    } else if (size >= (cell.kind === 'near' ? 7 : 5) && hasDot(cell)) {
      to.fillStyle = ink
      const dot = Math.max(1.5, size / 3.5)
      to.fillRect(x + (inner - dot) / 2, y + (inner - dot) / 2, dot, dot)
    }
    to.globalAlpha = 1
  }

  #paintLabels(
    to: CanvasRenderingContext2D,
    {
      left,
      top,
      rows,
      columns,
    }: { left: number; top: number; rows: readonly [number, number]; columns: readonly [number, number] },
  ): void {
    if (this.#gutter === 0) return
    const { clientWidth } = this.#scroller
    to.fillStyle = this.#colour('paper')
    to.fillRect(0, 0, this.#gutter, this.#canvas.height)
    to.fillRect(0, 0, clientWidth, this.#head)
    to.textBaseline = 'middle'
    if (!this.#isLabelled) {
      this.#paintRuns(to, top)
      return
    }
    const isShown = this.#view.chosen !== undefined || document.activeElement === this.#grid
    const font = (chosen: boolean) =>
      `${chosen ? 650 : 400} ${Math.min(13, Math.max(10, this.#size * 0.72))}px system-ui, sans-serif`
    for (let row = rows[0]; row <= rows[1]; row++) {
      const y = top + (row + 0.5) * this.#size
      if (y < this.#head) continue
      const isChosen = isShown && row === this.#place.row
      to.font = font(isChosen)
      this.#paintRowLabel(to, row, y, isChosen)
    }
    if (this.#gutter >= 100) {
      to.font = font(false)
      to.fillStyle = this.#colour('soft')
      to.textAlign = 'left'
      to.fillText('class', 0, this.#head - 10)
      to.textAlign = 'right'
      to.fillText('hosts', this.#gutter - 8, this.#head - 10)
    }
    to.textAlign = 'center'
    for (let column = columns[0]; column <= columns[1]; column++) {
      const x = left + (column + 0.5) * this.#size
      if (x < this.#gutter) continue
      const isChosen = isShown && column === this.#place.column
      to.font = font(isChosen)
      to.fillStyle = this.#colour(isChosen ? 'ink' : 'soft')
      const text = `${this.#view.lines[column]![0]! + 1}`
      to.save()
      to.translate(x, this.#head - 4)
      if (to.measureText(text).width > this.#size - 2) {
        to.rotate(-Math.PI / 2)
        to.textAlign = 'left'
      } else to.translate(0, -6)
      to.fillText(text, 0, 0)
      to.restore()
    }
  }

  #paintRowLabel(to: CanvasRenderingContext2D, row: number, y: number, isChosen: boolean): void {
    const line = this.#view.lines[row]!
    const { cpu, releases } = this.#view.data.classes[line[0]!]!
    const label = `${line[0]! + 1}`
    const end = this.#gutter - 8
    to.textAlign = 'right'
    if (this.#gutter < 100) {
      to.fillStyle = this.#colour(isChosen ? 'ink' : 'soft')
      to.fillText(label, end, y)
      return
    }
    const hostCount = line.reduce((sum, index) => sum + this.#view.data.classes[index]!.hostCount, 0)
    to.fillStyle = this.#colour('soft')
    to.fillText(number(hostCount), end, y)
    const more = line.length > 1 ? ` +${line.length - 1}` : ''
    to.textAlign = 'left'
    to.fillText(label, 0, y)
    to.fillStyle = this.#colour('ink')
    const room = end - 28 - to.measureText(number(hostCount)).width - 10
    const text = `${shortCpu(cpu)} · ${shortRelease(releases[0] ?? '')}`
    to.fillText(`${fitted(to, text, room - to.measureText(more).width)}${more}`, 28, y)
  }

  /** Where rows are too low for labels, neighbours of one CPU share one. */
  #paintRuns(to: CanvasRenderingContext2D, top: number): void {
    const { lines, data } = this.#view
    const cpu = (row: number) => shortCpu(data.classes[lines[row]![0]!]!.cpu)
    to.font = '11px system-ui, sans-serif'
    to.textAlign = 'right'
    let start = 0
    let free = -Infinity
    for (let row = 1; row <= lines.length; row++) {
      if (row < lines.length && cpu(row) === cpu(start)) continue
      const [from, until] = [top + start * this.#size, top + row * this.#size]
      to.fillStyle = this.#colour('line')
      if (until - from >= 3) to.fillRect(this.#gutter - 6, from + 0.5, 2, until - from - 1)
      const y = (Math.max(from, this.#head) + Math.min(until, top + lines.length * this.#size)) / 2
      if (y - 6 > free && until - from >= 3) {
        to.fillStyle = this.#colour('soft')
        to.fillText(fitted(to, cpu(start), this.#gutter - 12), this.#gutter - 10, y)
        free = y + 7
      }
      start = row
    }
  }
}

/** Where there is no room for a mark, a dot distinguishes the rarer kinds from others of a similar colour. */
function hasDot({ kind, isOpened }: Cell): boolean {
  return kind === 'near' || kind === 'broken' || isOpened
}

function colourOf({ kind, isOpened }: Cell): Colour {
  return isOpened ? 'opened' : kind
}

/** The CPU without the name of its maker. */
function shortCpu(cpu: string): string {
  return cpu.replace(/^Arm /, '')
}

/** `6.12.118` of `6.12.118+deb13-arm64` */
function shortRelease(release: string): string {
  return /^\d+(\.\d+)+/.exec(release)?.[0] ?? release
}

function fitted(to: CanvasRenderingContext2D, text: string, room: number): string {
  if (to.measureText(text).width <= room) return text
  let length = text.length
  while (length > 1 && to.measureText(`${text.slice(0, length)}…`).width > room) length--
  return `${text.slice(0, length)}…`
}

function legend(view: FleetView): HTMLElement {
  const root = make('ul', { class: 'legend', 'aria-label': 'Legend' })
  const draw = () => {
    const entries: [string, string, string][] = [
      ['free', '✓', kindWords.free],
      ['changed', '≈', kindWords.changed],
      ...(view.isElected ? [['opened', '+', 'opened by the baseline'] as [string, string, string]] : []),
      ['near', marks.near, kindWords.near],
      ['stopped', '✗', kindWords.stopped],
      ...(view.data.obstacles.some(({ severity }) => severity === 'guest broken')
        ? [['broken', '!', kindWords.broken] as [string, string, string]]
        : []),
    ]
    if (view.data.patterns.some(isDoubtful)) entries.push(['free', '✓?', 'moves, as far as the reports say'])
    root.replaceChildren(
      ...entries.map(([kind, mark, words]) =>
        make('li', {}, make('span', { class: `swatch ${kind}`, 'aria-hidden': 'true' }, mark), words),
      ),
      make('li', { class: 'note' }, rowsText(view)),
    )
  }
  view.onChange(draw)
  draw()
  return root
}

function rowsText({ lines, data }: FleetView): string {
  return lines.length === data.classes.length
    ? 'rows move to columns'
    : `rows move to columns; ${count(data.classes.length, 'class', 'classes')} in ${number(lines.length)} rows`
}
