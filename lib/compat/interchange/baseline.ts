import type { Baseline } from '../baseline/format.js'
import { type ConfiguredRegister, type GuestConfiguration, vectorLengthsOf } from './configuration.js'

/** What a guest configured by a baseline is shown. */
export function baselineConfiguration(baseline: Baseline): GuestConfiguration {
  const { features, psciVersion, bitmaps, idRegisters, registers, vectorLengths, unreconciled } = baseline
  // A template or an option cannot make an exception for hosts that lack a register.
  const absent = new Set(unreconciled.filter(({ kind }) => kind === 'absent').map(({ id }) => id))
  const everywhere = bitmaps.filter(({ absentOn }) => absentOn.length === 0)
  return {
    features,
    ...(psciVersion !== null && { psciVersion: BigInt(psciVersion) }),
    bitmaps: everywhere.map(({ id, value }) => numbers({ id, value, mask: '0xffffffffffffffff' })),
    idRegisters: [...idRegisters, ...registers].filter(({ id }) => !absent.has(id)).map(numbers),
    vectorLengths: vectorLengths === null ? [] : vectorLengthsOf(BigInt(vectorLengths)),
    leftToHosts: bitmaps.filter(({ absentOn }) => absentOn.length > 0).map(({ name }) => name),
  }
}

function numbers({ id, value, mask }: { id: string; value: string; mask: string }): ConfiguredRegister {
  return { id: BigInt(id), value: BigInt(value), mask: BigInt(mask) }
}
