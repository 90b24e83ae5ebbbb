import { functionName, serviceBitmapOf, serviceOfBit } from '../../hypercalls/index.js'
import { hex } from '../../registers/index.js'
import { bitmapsOf } from '../../report/registers.js'
import type { Report } from '../../report/report.js'
import { paint } from '../output.js'
import { table } from './table.js'
import { wrap } from './text.js'

interface OfferedService {
  register: string
  id: string
  bit: number
  service: string
  /** Whether a guest finds it if userspace elects nothing. */
  shownByDefault: boolean
  /** What happens to the functions while the bit is clear: KVM refuses them, or KVM never implemented them. */
  kind: 'gates' | 'advertises' | 'unknown'
  functions: { id: string; name: string }[]
}

/** Lists every service for which a host's bitmap registers have a bit, in order. */
export function offeredServices(report: Report): OfferedService[] {
  return bitmapsOf(report).flatMap(({ id, name, mask, reset }) => {
    const bitmap = serviceBitmapOf(BigInt(id))
    const bits = Array.from({ length: 64 }, (_, bit) => bit).filter((bit) => isSet(mask, bit))
    return bits.map((bit): OfferedService => {
      const service = bitmap && serviceOfBit(bitmap, bit)
      return {
        register: name,
        id,
        bit,
        service: service?.name ?? `bit-${bit}`,
        shownByDefault: isSet(reset, bit),
        kind: service === undefined ? 'unknown' : service.gated ? 'gates' : 'advertises',
        functions: (service?.functions ?? []).map((functionId) => ({
          id: hex(functionId),
          name: functionName(functionId),
        })),
      }
    })
  })
}

export function servicesText(report: Report): string {
  const bitmaps = bitmapsOf(report)
  if (bitmaps.length === 0) {
    return wrap(
      'This host has no bitmap firmware registers: a guest finds every service, and nothing can be elected.',
      2,
    )
  }
  const rows = offeredServices(report).map(({ register, bit, service, shownByDefault, kind, functions }) => [
    register.replace('KVM_REG_ARM_', ''),
    `${bit}`,
    service,
    shownByDefault ? 'shown' : 'hidden',
    kind,
    functions.map(({ name }) => name).join(' '),
  ])
  const registers = bitmaps.map(({ name, id, mask, reset }) => [name, id, hex(mask), hex(reset)])
  return [
    table(['register', 'id', 'supported', 'reset'], registers),
    '',
    table(['register', 'bit', 'service', 'by default', 'the bit', 'functions'], rows),
    rows.some((row) => row[4] === 'advertises')
      ? wrap(
          paint('dim', 'advertises: guests see the bit, but userspace must answer the calls (SMCCC filter).'),
          2,
        )
      : '',
  ]
    .join('\n')
    .trimEnd()
}

function isSet(mask: bigint, bit: number): boolean {
  return ((mask >> BigInt(bit)) & 1n) === 1n
}
