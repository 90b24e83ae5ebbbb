/** The machine's CPUs, as Linux shows them. */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import type { CpuCache, CpuKind, PinnedCpu } from '../backend.js'
import { hex } from '../registers/index.js'
import { asRanges } from '../report/ranges.js'

/** Linux has at most 8192 CPUs on any architecture. */
const MASK_BYTES = 1024

const cacheTypes = { Data: 'data', Instruction: 'instruction', Unified: 'unified' } as const

/**
 * Returns the online CPUs by kind: MIDR_EL1, REVIDR_EL1 and caches. Undefined if Linux does not show them, as where `/sys` is
 * missing or the CPUs are not arm64.
 * @param folder `/sys/devices/system/cpu`, or a folder like it
 */
export function readCpuKinds(folder = '/sys/devices/system/cpu'): CpuKind[] | undefined {
  const kinds: { numbers: number[]; kind: Omit<CpuKind, 'cpus'> }[] = []
  for (const cpu of numbered(folder, 'cpu')) {
    const of = join(folder, `cpu${cpu}`)
    const midr = readRegister(of, 'midr_el1')
    // An offline CPU has none.
    if (midr === undefined) continue
    const kind = { midr, revidr: readRegister(of, 'revidr_el1') ?? '0x0', caches: readCaches(of) }
    const known = kinds.find((entry) => isDeepStrictEqual(entry.kind, kind))
    if (known === undefined) kinds.push({ numbers: [cpu], kind })
    else known.numbers.push(cpu)
  }
  if (kinds.length === 0) return undefined
  return kinds.map(({ numbers, kind: { midr, revidr, caches } }) => {
    return { cpus: asRanges(numbers), midr, revidr, caches }
  })
}

/** Returns n of each entry `<prefix><n>` of a folder, in ascending order; none if the folder cannot be read. */
function numbered(folder: string, prefix: string): number[] {
  const pattern = new RegExp(`^${prefix}(\\d+)$`)
  try {
    return readdirSync(folder)
      .flatMap((name) => pattern.exec(name)?.[1] ?? [])
      .map(Number)
      .toSorted((a, b) => a - b)
  } catch {
    return []
  }
}

/** Returns the content of a file without the line's end; undefined if it cannot be read. */
function contentOf(...path: string[]): string | undefined {
  try {
    return readFileSync(join(...path), 'utf8').trim()
  } catch {
    return undefined
  }
}

function readRegister(cpu: string, name: string): string | undefined {
  const text = contentOf(cpu, 'regs/identification', name)
  return text !== undefined && /^0x[0-9a-f]{1,16}$/.test(text) ? hex(BigInt(text)) : undefined
}

function readCaches(cpu: string): CpuCache[] {
  const folder = join(cpu, 'cache')
  return numbered(folder, 'index').flatMap((index): CpuCache[] => {
    const of = join(folder, `index${index}`)
    const type = cacheTypes[contentOf(of, 'type') as keyof typeof cacheTypes] as CpuCache['type'] | undefined
    const level = Number(contentOf(of, 'level'))
    if (type === undefined || !(level >= 1 && level <= 7)) return []
    const [size, line, ways, sets] = [
      contentOf(of, 'size')?.replace(/K$/, ''),
      contentOf(of, 'coherency_line_size'),
      contentOf(of, 'ways_of_associativity'),
      contentOf(of, 'number_of_sets'),
    ].map((text) => (text !== undefined && /^[1-9]\d{0,8}$/.test(text) ? Number(text) : undefined))
    return [
      {
        level,
        type,
        ...(size !== undefined && { size: 1024 * size }),
        ...(line !== undefined && { line }),
        ...(ways !== undefined && { ways }),
        ...(sets !== undefined && { sets }),
      },
    ]
  })
}

/** The affinity of the calling thread, as the addon reads and sets it. */
interface Affinity {
  getAffinity(mask: Uint8Array): number
  setAffinity(mask: Uint8Array): number
}

/** Keeps the calling thread on the lowest of the CPUs it may run on; `-errno` if that fails. */
export function pinToLowest(affinity: Affinity): PinnedCpu | number {
  const before = new Uint8Array(MASK_BYTES)
  const read = affinity.getAffinity(before)
  if (read < 0) return read
  const byte = before.findIndex((bits) => bits !== 0)
  const bit = 31 - Math.clz32(before[byte]! & -before[byte]!)
  const one = new Uint8Array(MASK_BYTES)
  one[byte] = 1 << bit
  const outcome = affinity.setAffinity(one)
  return outcome < 0 ? outcome : { cpu: 8 * byte + bit, release: () => void affinity.setAffinity(before) }
}
