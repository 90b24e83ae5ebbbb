/** Groups obstacles for the panel: registers for which the same is said stand together. */
import type { Obstacle } from './data.js'

export interface Reason {
  stops: boolean
  severity: string
  meaning: string
  remedy: string
  registers: { subject: string; source: string; destination: string }[]
}

/** Keeps the order: the gravest first. */
export function reasonsOf(obstacles: readonly Obstacle[]): Reason[] {
  const reasons = new Map<string, Reason>()
  for (const { stops, severity, meaning, remedy, subject, source, destination } of obstacles) {
    const key = JSON.stringify([stops, severity, meaning, remedy])
    const known = reasons.get(key) ?? { stops, severity, meaning, remedy, registers: [] }
    known.registers.push({ subject, source, destination })
    reasons.set(key, known)
  }
  return [...reasons.values()]
}
