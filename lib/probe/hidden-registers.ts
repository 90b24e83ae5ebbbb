/** Finds the registers that KVM hides from a VM whose ID registers do not announce them. */
import type { SystemFd, VcpuFd } from '../backend.js'
import { hex, isFeatureIdRegister, registerName } from '../registers/index.js'
import type { ReportedRegister, Traits } from '../report/report.js'
import { acceptedNibbles, formatDigits, nibbleOf, nibblePlaces, sixteen } from '../report/write-rule.js'
import type { VcpuFeature } from '../uapi.js'
import { BASE } from './configurations.js'
import { initialise, listRegisters, onVcpu, onVm, readRegister } from './rig.js'

type HiddenRegisters = NonNullable<Traits['hiddenRegisters']>

/** Returns undefined if there are none. */
export function probeHiddenRegisters(
  kvm: SystemFd,
  type: bigint,
  supported: readonly VcpuFeature[],
  base: readonly ReportedRegister[],
): Traits['hiddenRegisters'] {
  // EL2 has registers of its own that depend on the same fields.
  const sets: VcpuFeature[][] = [
    [...BASE],
    ...(supported.includes('has-el2') ? [[...BASE, 'has-el2' as const]] : []),
  ]
  const rows = sets.reduce<HiddenRegisters>(
    (found, features) => withRows(found, probeVcpu(kvm, type, features, base)),
    [],
  )
  return rows.length > 0 ? rows : undefined
}

function withRows(rows: HiddenRegisters, more: HiddenRegisters): HiddenRegisters {
  const isSame = (a: HiddenRegisters[number], b: HiddenRegisters[number]): boolean =>
    a.id === b.id && a.nibble === b.nibble && a.values === b.values
  const [known, fresh] = [
    more.filter((row) => rows.some((other) => isSame(row, other))),
    more.filter((row) => !rows.some((other) => isSame(row, other))),
  ]
  const merged = rows.map((row) => {
    const others = known.find((other) => isSame(row, other))?.hides ?? []
    const has = new Set(row.hides.map(({ id }) => id))
    return Object.assign({}, row, { hides: [...row.hides, ...others.filter(({ id }) => !has.has(id))] })
  })
  return [...merged, ...fresh]
}

/** Gives every field of every ID register of a vCPU each of its other values, and lists the registers again. */
function probeVcpu(
  kvm: SystemFd,
  type: bigint,
  features: readonly VcpuFeature[],
  registers: readonly ReportedRegister[],
): HiddenRegisters {
  return onVm(kvm, type, (vm) =>
    onVcpu(vm, 0, (vcpu) => {
      initialise(vm, vcpu, features)
      const all = [...listRegisters(vcpu)]
      return registers.flatMap((register) => hiddenBy(vcpu, register, all))
    }),
  )
}

function hiddenBy(vcpu: VcpuFd, { id, name, write }: ReportedRegister, all: bigint[]): HiddenRegisters {
  // CLIDR_EL1 describes caches, and belongs to each vCPU.
  if (!isFeatureIdRegister(BigInt(id)) || name === 'CLIDR_EL1' || write?.rule !== 'nibbles') return []
  const fresh = readRegister(vcpu, BigInt(id))
  const accepted = acceptedNibbles(write, fresh)
  return accepted.flatMap((set, nibble) => {
    const shift = BigInt(4 * nibble)
    const found = new Map<string, { values: number; hides: bigint[] }>()
    for (const other of sixteen) {
      if (((set >> other) & 1) === 0 || other === nibbleOf(fresh, nibble)) continue
      if (vcpu.setOneReg(BigInt(id), (fresh & ~(0xfn << shift)) | (BigInt(other) << shift)) < 0) continue
      // Counting costs one call instead of two.
      if (countRegisters(vcpu) === all.length) continue
      const listed = new Set(listRegisters(vcpu))
      const hides = all.filter((each) => !listed.has(each))
      const row = found.get(hides.join()) ?? { values: 0, hides }
      found.set(hides.join(), { ...row, values: row.values | (1 << other) })
    }
    vcpu.setOneReg(BigInt(id), fresh)
    return [...found.values()].map(({ values, hides }) => ({
      id,
      name,
      nibble: nibblePlaces[nibble]!,
      values: formatDigits(values),
      hides: hides.map((hidden) => ({ id: hex(hidden), name: registerName(hidden) })),
    }))
  })
}

function countRegisters(vcpu: VcpuFd): number {
  const count = new BigUint64Array(1)
  vcpu.getRegList(count)
  return Number(count[0])
}
