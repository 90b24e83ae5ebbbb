/** The classes of a fleet that are compared, with what matters of each as the source and as the destination of a move. */
import { FormatError } from '../documents/document.js'
import type { HostClass } from './classes.js'
import { destinationKey, type MadeVm, makeVm, type Maker, sourceKey } from './predict.js'

/**
 * The limit on classes, each of which is compared with every other. At worst nearly every move has a prediction of its own, with some
 * eighty obstacles: those of 500 classes take hundreds of megabytes in memory and about a hundred as a document; those of 1,000 would
 * not fit into a gigabyte.
 */
export const MAX_COMPARED = 500

/** A class by what matters in predictions. */
export interface ComparedClass {
  of: HostClass
  source: string
  destination: string
  /** Returns its VM. It is made again when first needed: most predictions may be known, and the states of all VMs are large. */
  vm: () => MadeVm
}

export interface Compared {
  classes: ComparedClass[]
  /** Those that are too many. */
  rest: readonly HostClass[]
  /** Those from whose report no VM can be simulated. */
  errors: { class: HostClass; error: FormatError }[]
}

/** Returns the first classes that can be compared. */
export function compareClasses(all: readonly HostClass[], maker: Maker): Compared {
  const classes: ComparedClass[] = []
  const errors: Compared['errors'] = []
  /** Classes with the same VM have it once. */
  const vms = new Map<string, () => MadeVm>()
  for (const [index, of] of all.entries()) {
    if (classes.length === MAX_COMPARED) return { classes, rest: all.slice(index), errors }
    try {
      const report = of.report()
      const source = sourceKey(makeVm(report, of.first, maker))
      const vm = vms.get(source) ?? once(() => makeVm(of.report(), of.first, maker))
      vms.set(source, vm)
      classes.push({ of, source, destination: destinationKey(report), vm })
    } catch (error) {
      if (!(error instanceof FormatError)) throw error
      errors.push({ class: of, error })
    }
  }
  return { classes, rest: [], errors }
}

function once<T>(make: () => T): () => T {
  let made: T | undefined
  return () => (made ??= make())
}
