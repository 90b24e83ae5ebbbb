/** The numbers from 0 to N - 1, at most 999 of them, as a union of literal types. */
export type Below<N extends number, Counted extends unknown[] = []> = Counted['length'] extends N
  ? never
  : Counted['length'] | Below<N, [...Counted, unknown]>
