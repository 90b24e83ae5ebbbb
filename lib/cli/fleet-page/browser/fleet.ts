/** The fleet as the page looks at it now: the data, the state of the view, and what follows from both. */
import { addressOf, stateOf, type ViewState } from '../model/address.js'
import type { FleetData, Judgement, Pattern, VmmView } from '../model/data.js'
import { isDoubtful, type Kind, kindOf } from '../model/kinds.js'
import { alike } from '../model/order.js'
import { search } from '../model/search.js'

/** From this number of classes on, those that move alike share a row unless one asks otherwise. */
const MANY = 60

/** A cell as it is drawn. */
export interface Cell {
  kind: Kind
  /** The baseline makes the move possible. */
  isOpened: boolean
  /** The move is possible as far as the reports say. */
  isDoubtful: boolean
  /** A filter leaves it out. */
  isDim: boolean
}

export class FleetView {
  readonly data: FleetData
  readonly #vmms: readonly string[]
  readonly #listeners: (() => void)[] = []
  readonly #kinds: readonly Kind[]
  /** The part of the state that `lines` follow from. */
  #linesOf = ''
  state: ViewState
  /** Rows and columns: each stands for one class, or for several that move alike. */
  lines: number[][] = []
  /** The classes that the search finds; undefined without a search. */
  found: Set<number> | undefined

  constructor(data: FleetData) {
    this.data = data
    this.#vmms = data.vmms.map(({ vmm }) => vmm)
    this.#kinds = data.patterns.map((pattern) => kindOf(pattern, data.obstacles))
    this.state = stateOf(location.hash, this.#vmms)
    this.#derive()
    addEventListener('hashchange', () => {
      if (location.hash === this.address(this.state)) return
      this.state = stateOf(location.hash, this.#vmms)
      this.#derive()
      this.#notify()
    })
  }

  /** Calls back whenever the view changes. */
  onChange(listener: () => void): void {
    this.#listeners.push(listener)
  }

  /** Changes the view, and with it the page's address. */
  update(change: Partial<ViewState>): void {
    this.state = { ...this.state, ...change }
    history.replaceState(null, '', this.address(this.state))
    this.#derive()
    this.#notify()
  }

  address(state: ViewState): string {
    return addressOf(state, this.#vmms)
  }

  get vmm(): VmmView {
    return this.data.vmms.find(({ vmm }) => vmm === this.state.vmm)!
  }

  /** Whether the moves shown are those with the baseline: not every VMM can elect one. */
  get isElected(): boolean {
    return this.state.elected && this.vmm.elected !== undefined
  }

  /** The moves shown. */
  get judgement(): Judgement {
    const { asIs, elected } = this.vmm
    return this.state.elected && elected !== undefined ? elected : asIs
  }

  get isGrouped(): boolean {
    return this.state.grouped ?? this.data.classes.length > MANY
  }

  /** The classes of the chosen move. */
  get chosen(): { from: number; to: number } | undefined {
    const { from, to } = this.state
    const at = (digest: string | undefined) => this.data.classes.findIndex((one) => one.digest === digest)
    const move = { from: at(from), to: at(to) }
    return move.from < 0 || move.to < 0 ? undefined : move
  }

  choose(from: number, to: number): void {
    this.update({ from: this.data.classes[from]!.digest, to: this.data.classes[to]!.digest })
  }

  pattern(from: number, to: number, { moves }: Judgement = this.judgement): Pattern | undefined {
    const index = moves[from]?.[to] ?? -1
    return index < 0 ? undefined : this.data.patterns[index]
  }

  kind(from: number, to: number): Kind {
    const index = this.judgement.moves[from]![to]!
    return index < 0 ? 'none' : this.#kinds[index]!
  }

  /** The cell between two lines: that between their first classes, or within a line the moves among its classes. */
  cell(row: number, column: number): Cell {
    const { from, to } = this.moveAt(row, column)
    const kind = this.kind(from, to)
    const before = this.vmm.asIs.moves[from]![to]!
    const isOpened =
      this.isElected &&
      (kind === 'free' || kind === 'changed') &&
      before >= 0 &&
      !this.data.patterns[before]!.possible
    return {
      kind,
      isOpened,
      isDoubtful: isDoubtful(this.pattern(from, to)),
      isDim: this.#isDim(from, to, this.lines[row]!, this.lines[column]!),
    }
  }

  /** The move that a cell stands for. */
  moveAt(row: number, column: number): { from: number; to: number } {
    const from = this.lines[row]![0]!
    const to = row === column ? (this.lines[column]![1] ?? from) : this.lines[column]![0]!
    return { from, to }
  }

  /** The line a class is in. */
  lineOf(index: number): number {
    return this.lines.findIndex((line) => line.includes(index))
  }

  #isDim(from: number, to: number, row: readonly number[], column: readonly number[]): boolean {
    const { found, state } = this
    if (found !== undefined && !row.some((one) => found.has(one)) && !column.some((one) => found.has(one))) {
      return true
    }
    if (state.severity === '' && state.cause === '') return false
    const { obstacles = [] } = this.pattern(from, to) ?? {}
    return !obstacles.some((index) => {
      const { severity, cause } = this.data.obstacles[index]!
      return (
        (state.severity === '' || severity === state.severity) &&
        (state.cause === '' || cause === state.cause)
      )
    })
  }

  #derive(): void {
    const { vmm, query } = this.state
    this.found = search(this.data.classes, query)
    const key = JSON.stringify([vmm, this.isGrouped])
    if (key === this.#linesOf) return
    this.#linesOf = key
    const { order, asIs, elected } = this.vmm
    // The same rows with and without the baseline: so one sees what it opens.
    const ways = [asIs, ...(elected === undefined ? [] : [elected])].map(
      (judgement) => (from: number, to: number) => this.pattern(from, to, judgement)?.possible ?? false,
    )
    this.lines = this.isGrouped ? alike(order, ...ways) : order.map((one) => [one])
  }

  #notify(): void {
    for (const listener of this.#listeners) listener()
  }
}
