/** The data in a page, as the command writes it and the page's script reads it. All indices are from 0. */

/** One kind of move, and everything that is said about it. Many moves have the same. */
export interface Pattern {
  possible: boolean
  /** Indices into `obstacles`, the gravest first. */
  obstacles: number[]
  /** What the answer depends on and nobody recorded. */
  unknown: string[]
}

export interface Obstacle {
  /** The move fails because of it, or the guest breaks. */
  stops: boolean
  /** `refused`, `guest broken`, … */
  severity: string
  /** Groups obstacles of one origin: a register's name, or the code of findings whose words fit many registers. */
  cause: string
  /** `ID_AA64MMFR1_EL1.HCX` */
  subject: string
  source: string
  destination: string
  meaning: string
  remedy: string
}

export interface HostClass {
  /** Identifies the class in addresses and in other outputs. */
  digest: string
  hostCount: number
  cpu: string
  releases: string[]
  psci: string
  answeredBy: string
  /** Where the first report was read. */
  first: string
  names: string[]
}

/** A class that moves, if its hosts get another kernel. */
export interface Upgrade {
  class: number
  upgrade: string
  opens: { direction: 'to' | 'from'; class: number }[]
  closes: { direction: 'to' | 'from'; class: number }[]
}

export interface Divide {
  subject: string
  pairs: [number, number][]
  hostCount: number
}

/** `pattern[from][to]`, an index into `patterns`; -1 from a class to itself and where nothing was compared. */
export type Matrix = number[][]

/** The moves of VMs made in one way: as they are, or by the baseline. */
export interface Judgement {
  moves: Matrix
  groups: { classes: number[]; hostCount: number }[]
  /** Classes whose VMs cannot move, not even to another host of the class. */
  bound: number[]
}

/** What one VMM can do. */
export interface VmmView {
  vmm: string
  asIs: Judgement
  /** Absent if no baseline could be computed. */
  elected?: Judgement
  /** How to elect the baseline with this VMM; or why there is none. */
  election: string
  /** Classes in an order in which free movement forms blocks. */
  order: number[]
  divides: Divide[]
  upgrades: Upgrade[]
}

export interface FleetData {
  kind: 'fleet'
  hostCount: number
  faulty: number
  left: { classes: number; hostCount: number }
  classes: HostClass[]
  obstacles: Obstacle[]
  patterns: Pattern[]
  vmms: VmmView[]
}

/** One move of `check`. */
export interface PairMove extends Pattern {
  from: string
  to: string
  vmm: string
  /** Sentences about how it was judged. */
  notes: string[]
}

export interface PairData {
  kind: 'pair'
  obstacles: Obstacle[]
  moves: PairMove[]
}

/** The cause of moves to another kind of CPU. Other causes that such a move has come with the CPU. */
export const ANOTHER_CPU = 'another CPU'

export type PageData = FleetData | PairData
