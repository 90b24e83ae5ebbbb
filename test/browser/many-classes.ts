/** A made-up fleet of any size, for the page: kernels of a few CPUs, newer ones with features that older ones lack. */
import type { JudgedFleet } from '../../lib/cli/fleet-page/fleet-page.js'
import type { FleetDocument } from '../../lib/fleet/document.js'
import type { MoveTable, Prediction } from '../../lib/fleet/moves.js'
import type { Finding } from '../../lib/migration/finding.js'
import { encodeRegister, hex } from '../../lib/registers/index.js'

const CPUS = [
  'Arm Neoverse N1 r4p1',
  'Arm Neoverse V1 r1p2',
  'Arm Cortex-A57 r1p0',
  'Fujitsu A64FX r1p0',
  'QEMU max r0p0',
]
const KERNELS = ['5.10.0', '6.1.0', '6.12.118', '6.18.15', '7.2.13']

const about = { severity: 'refused' as const, stops: true, vcpus: [0] }

function registerNamed(name: string): { id: string; name: string } {
  return { id: hex(encodeRegister(name)), name }
}

const obstacles: Finding[] = [
  { ...about, code: 'cpu-identity', register: registerNamed('MIDR_EL1'), source: '0x1', destination: '0x2' },
  {
    ...about,
    code: 'psci-version-refused',
    register: registerNamed('KVM_REG_ARM_PSCI_VERSION'),
    source: '0x10003',
    destination: '0x10001',
    accepted: ['0x10001'],
  },
  {
    ...about,
    code: 'value-refused',
    register: registerNamed('ID_AA64ISAR0_EL1'),
    source: '0x1',
    destination: '0x0',
  },
]

const [CPU, PSCI, ISAR0] = [0, 1, 2]

/** Class `index` has a CPU, a kernel, and for every third of them one more feature. */
function traitsOf(index: number) {
  return {
    cpu: Math.floor(index / 5) % CPUS.length,
    kernel: index % KERNELS.length,
    hasMore: Math.floor(index / 25) % 3 === 2,
  }
}

export function manyClasses(size: number): JudgedFleet {
  const classes: FleetDocument['classes'] = Array.from({ length: size }, (_, index) => {
    const { cpu, kernel } = traitsOf(index)
    const hostCount = Math.max(1, Math.round(2000 / (index + 1)))
    return {
      digest: index.toString(16).padStart(12, '0'),
      hostCount,
      cpu: CPUS[cpu]!,
      psciVersion: '0x10001',
      releases: [`${KERNELS[kernel]}-arm64`],
      origins: [{ origin: { kind: 'kernel' }, hostCount }],
      first: `reports/${index}.json`,
      names: Array.from({ length: hostCount }, (__, host) => `rack-${index}-node-${host}`),
    }
  })
  const document = (isElected: boolean): FleetDocument => ({
    format: 'kvm-arm64/fleet',
    version: 1,
    hostCount: classes.reduce((sum, { hostCount }) => sum + hostCount, 0),
    faulty: 0,
    vmm: 'strict',
    classes,
    left: { classes: 0, hostCount: 0 },
    ...tableOf(size, isElected),
    obstacles,
    groups: [{ classes: [0], hostCount: classes[0]!.hostCount }],
    divides: [],
    upgrades: [],
  })
  return { asIs: document(false), elected: document(true), election: 'kvm-arm64 baseline reports/*.json' }
}

function tableOf(size: number, isElected: boolean): MoveTable {
  const table: MoveTable = { predictions: [], moves: [] }
  const known = new Map<string, number>()
  const indexOf = (prediction: Prediction): number => {
    const key = prediction.obstacles.join()
    if (!known.has(key)) known.set(key, table.predictions.push(prediction) - 1)
    return known.get(key)!
  }
  for (let from = 0; from < size; from++) {
    table.moves.push(Array.from({ length: size }, (_, to) => indexOf(moveBetween(from, to, isElected))))
  }
  return table
}

function moveBetween(from: number, to: number, isElected: boolean): Prediction {
  const [source, destination] = [traitsOf(from), traitsOf(to)]
  const found = [
    ...(source.cpu === destination.cpu ? [] : [CPU]),
    ...(source.kernel <= destination.kernel || isElected ? [] : [PSCI]),
    ...(source.hasMore && !destination.hasMore ? [ISAR0] : []),
  ]
  return { possible: found.length === 0, obstacles: found }
}
