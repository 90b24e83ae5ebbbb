/** What a cell of the matrix says. */
import type { Obstacle, Pattern } from './data.js'

export type Kind = 'none' | 'free' | 'changed' | 'near' | 'stopped' | 'broken'

/** The mark of each kind, which says without colour what the colour says. */
export const marks: Readonly<Record<Kind, string>> = {
  none: '·',
  free: '✓',
  changed: '≈',
  near: '1',
  stopped: '✗',
  broken: '!',
}

export const kindWords: Readonly<Record<Exclude<Kind, 'none'>, string>> = {
  free: 'moves',
  changed: 'moves, guest sees a change',
  near: 'one cause stops it',
  stopped: 'several causes stop it',
  broken: 'restores, guest breaks',
}

/** Whether a move is predicted to be possible, and the answer depends on what a report does not say. */
export function isDoubtful(pattern: Pattern | undefined): boolean {
  return pattern !== undefined && pattern.possible && pattern.unknown.length > 0
}

/** The causes that stop a move, each once, and the number of obstacles. */
export function stopping(
  { obstacles }: Pattern,
  all: readonly Obstacle[],
): { causes: Set<string>; count: number } {
  const found = obstacles.map((index) => all[index]!).filter(({ stops }) => stops)
  return { causes: new Set(found.map(({ cause }) => cause)), count: found.length }
}

export function kindOf(pattern: Pattern | undefined, all: readonly Obstacle[]): Kind {
  if (pattern === undefined) return 'none'
  if (pattern.possible) return pattern.obstacles.length === 0 ? 'free' : 'changed'
  const found = pattern.obstacles.map((index) => all[index]!).filter(({ stops }) => stops)
  if (found.length > 0 && found.every(({ severity }) => severity === 'guest broken')) return 'broken'
  return stopping(pattern, all).causes.size === 1 ? 'near' : 'stopped'
}

/** `stopped by 3 obstacles` */
export function verdictWords(pattern: Pattern, all: readonly Obstacle[]): string {
  const doubt = pattern.unknown.length > 0 ? ', as far as the reports say' : ''
  const kind = kindOf(pattern, all)
  if (kind === 'free') return `moves${doubt}`
  if (kind === 'changed') return `moves, and its guest sees a change${doubt}`
  if (kind === 'broken') return 'the restore succeeds and breaks the guest'
  const { count } = stopping(pattern, all)
  return `stopped by ${count} ${count === 1 ? 'obstacle' : 'obstacles'}`
}
