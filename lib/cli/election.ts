import { InvalidArgumentError } from 'commander'
import { type ServiceGroup, serviceBitmaps } from '../hypercalls/index.js'
import type { Election } from '../kvm/index.js'

function namesIn(group: ServiceGroup): string[] {
  return serviceBitmaps[group].services.map(({ name }) => name)
}

/** Parses `--elect`: names of services of any register, which all registers are set from. */
export function parseElection(list: string): Election {
  const names = list === 'none' ? [] : list.split(',').map((name) => name.trim())
  const groups = Object.keys(serviceBitmaps) as ServiceGroup[]
  const unknown = names.find((name) => !groups.some((group) => namesIn(group).includes(name)))
  if (unknown !== undefined) {
    throw new InvalidArgumentError(
      `"${unknown}" is no service: ${groups.flatMap(namesIn).join(', ')}, or none.`,
    )
  }
  return Object.fromEntries(
    groups.map((group) => [group, names.filter((name) => namesIn(group).includes(name))]),
  )
}
