/**
 * The distributor and the redistributors of a GICv3 as userspace accesses them, 32 bits at a time
 * (`arch/arm64/kvm/vgic/vgic-mmio-v3.c`).
 */
import { errnos } from '../uapi.js'
import { affinityOf } from './affinity.js'
import { type Interrupt, PRIVATE_INTERRUPTS } from './gic-interrupts.js'
import type { Gic, VcpuState } from './state.js'

/** A vCPU of the GIC; for the distributor any. */
interface Place {
  gic: Gic
  vcpu: VcpuState
}

interface Region {
  /** Offset of the first byte in the frame. */
  at: number
  size: number
  /** Bits for each interrupt; 0 if the registers are not about interrupts. */
  bits: number
  /** Kernels with revision 2 lack it. */
  isNew?: true
  /** `word` counts from the region's first. */
  read(place: Place, word: number): number
  /** Returns 0 or `-errno`. */
  write(place: Place, word: number, value: number): number
}

const zero = { read: () => 0, write: () => 0 }

/** A register of one word that only shows something. */
function constant(at: number, read: (place: Place) => number): Region {
  return { at, size: 4, bits: 0, read, write: () => 0 }
}

function ignored(at: number, size = 4): Region {
  return { at, size, bits: 0, ...zero }
}

/** How a register shows and changes the interrupts of one word. */
interface Bank {
  bits: number
  read(interrupts: readonly Interrupt[]): number
  write(interrupts: readonly Interrupt[], value: number): void
}

function flags(show: (interrupt: Interrupt) => boolean): Bank['read'] {
  return (interrupts) =>
    interrupts.reduce((word, interrupt, bit) => (show(interrupt) ? (word | (1 << bit)) >>> 0 : word), 0)
}

function eachFlag(change: (interrupt: Interrupt, isSet: boolean) => void): Bank['write'] {
  return (interrupts, value) => {
    for (const [bit, interrupt] of interrupts.entries()) change(interrupt, ((value >>> bit) & 1) === 1)
  }
}

/** Changes the interrupts whose bit is set. */
function eachSet(change: (interrupt: Interrupt) => void): Bank['write'] {
  return eachFlag((interrupt, isSet) => {
    if (isSet) change(interrupt)
  })
}

function changeActive(active: boolean): Bank['write'] {
  // KVM lets nobody but the guest change those that are connected to the CPU's timer.
  return eachSet((interrupt) => {
    if (!interrupt.ofTimer) interrupt.active = active
  })
}

const isEnabled = flags(({ enabled }) => enabled)
const isActive = flags(({ active }) => active)

const groups: Bank = {
  bits: 1,
  read: flags(({ group }) => group),
  write: eachFlag((interrupt, isSet) => (interrupt.group = isSet)),
}
const setEnable: Bank = {
  bits: 1,
  read: isEnabled,
  write: eachSet((interrupt) => (interrupt.enabled = true)),
}
const clearEnable: Bank = {
  bits: 1,
  read: isEnabled,
  write: eachSet((interrupt) => (interrupt.enabled = false)),
}
/** For userspace it is what is latched, apart from the lines, and a write sets all of it. */
const setPending: Bank = {
  bits: 1,
  read: flags(({ latched }) => latched),
  write: eachFlag((interrupt, isSet) => (interrupt.latched = isSet)),
}
const nothing: Bank = { bits: 1, ...zero }
const setActive: Bank = { bits: 1, read: isActive, write: changeActive(true) }
const clearActive: Bank = { bits: 1, read: isActive, write: changeActive(false) }
/** KVM keeps the upper five bits of a priority. */
const PRIORITY_BITS = 0xf8
const priorities: Bank = {
  bits: 8,
  read: (interrupts) =>
    interrupts.reduce((word, { priority }, byte) => (word | (priority << (8 * byte))) >>> 0, 0),
  write: (interrupts, value) => {
    for (const [byte, interrupt] of interrupts.entries()) {
      interrupt.priority = (value >>> (8 * byte)) & PRIORITY_BITS
    }
  },
}
const configurations: Bank = {
  bits: 2,
  read: (interrupts) =>
    interrupts.reduce((word, { edge }, place) => (edge ? (word | (2 << (2 * place))) >>> 0 : word), 0),
  write: (interrupts, value) => {
    for (const [place, interrupt] of interrupts.entries()) {
      interrupt.edge = ((value >>> (2 * place)) & 2) !== 0
    }
  },
}
const fixedConfigurations: Bank = { ...configurations, write: () => {} }

function wordOf(interrupts: readonly Interrupt[], { bits }: Bank, word: number): readonly Interrupt[] {
  const count = 32 / bits
  return interrupts.slice(word * count, (word + 1) * count)
}

/** Interrupts a GICv3 can number, those of the vCPUs included. */
const NUMBERS = 1024

/** Registers of the distributor for all interrupts; those of the vCPUs' own are zero and ignore writes. */
function shared(at: number, bank: Bank): Region {
  const before = (bank.bits * PRIVATE_INTERRUPTS) / 32
  return {
    at,
    size: (bank.bits * NUMBERS) / 8,
    bits: bank.bits,
    read: ({ gic }, word) => (word < before ? 0 : bank.read(wordOf(gic.shared, bank, word - before))),
    write({ gic }, word, value) {
      if (word >= before) bank.write(wordOf(gic.shared, bank, word - before), value)
      return 0
    },
  }
}

/** Registers of a redistributor, for the interrupts of its vCPU. */
function own(at: number, bank: Bank): Region {
  return {
    at: SGI_FRAME + at,
    size: (bank.bits * PRIVATE_INTERRUPTS) / 8,
    bits: 0,
    read: ({ vcpu }, word) => bank.read(wordOf(vcpu.interrupts, bank, word)),
    write({ vcpu }, word, value) {
      bank.write(wordOf(vcpu.interrupts, bank, word), value)
      return 0
    },
  }
}

const SGI_FRAME = 0x1_0000

const GICD_CTLR_ENABLE_GROUP_1 = 0b10
/** Affinity routing, and no secure state. */
const GICD_CTLR_FIXED = 0x50

const control: Region = {
  at: 0x0,
  size: 4,
  bits: 0,
  read: ({ gic }) => GICD_CTLR_FIXED | (gic.enabled ? GICD_CTLR_ENABLE_GROUP_1 : 0),
  write({ gic }, _, value) {
    gic.enabled = (value & GICD_CTLR_ENABLE_GROUP_1) !== 0
    return 0
  },
}

/** Bits of interrupt numbers, less one, in bits 23:19 without message-signalled interrupts. */
const SPI_NUMBER_BITS = 9 << 19

const type = constant(0x4, ({ gic }) => ((gic.shared.length + PRIVATE_INTERRUPTS) / 32 - 1) | SPI_NUMBER_BITS)

/** Product of KVM, implementer Arm. */
const IIDR = 0x4b00_043b
const IIDR_REVISION_SHIFT = 12
const IIDR_REVISION = 0xf000

const identification: Region = {
  at: 0x8,
  size: 4,
  bits: 0,
  read: ({ gic }) => iidrOf(gic.revision),
  write: ({ gic, vcpu }, _, value) => writeIdentification(gic, vcpu, value),
}

function iidrOf(revision: number): number {
  return (IIDR | (revision << IIDR_REVISION_SHIFT)) >>> 0
}

function writeIdentification(gic: Gic, vcpu: VcpuState, value: number): number {
  if ((value & ~IIDR_REVISION) >>> 0 !== IIDR) return -errnos.EINVAL
  if (vcpu.vm.host.traits.gicRevisionKept) return 0
  const revision = (value & IIDR_REVISION) >>> IIDR_REVISION_SHIFT
  if (!vcpu.vm.host.gic.revisions.includes(revision)) return -errnos.EINVAL
  gic.revision = revision
  return 0
}

const type2: Region = {
  at: 0xc,
  size: 4,
  bits: 0,
  read: () => 0,
  write({ gic }, _, value) {
    if (value === 0) return 0
    return gic.model.identifiesBeforeInit && gic.initialised ? -errnos.EBUSY : -errnos.EINVAL
  },
}

/** GICv3, in the register PIDR2 of both frames. */
const PIDR2 = 0x3b
const identifiers: Region = {
  at: 0xffd0,
  size: 48,
  bits: 0,
  read: (_, word) => (word === 6 ? PIDR2 : 0),
  write: () => 0,
}

const routes: Region = {
  at: 0x6000,
  size: 8 * NUMBERS,
  bits: 64,
  // The upper word, of affinity level 3, is zero.
  read: ({ gic }, word) => (word % 2 === 0 ? (gic.shared[word / 2 - PRIVATE_INTERRUPTS]?.route ?? 0) : 0),
  write({ gic }, word, value) {
    const interrupt = word % 2 === 0 ? gic.shared[word / 2 - PRIVATE_INTERRUPTS] : undefined
    if (interrupt !== undefined) interrupt.route = value & 0xff_ffff
    return 0
  },
}

const distributor: readonly Region[] = [
  control,
  type,
  identification,
  type2,
  constant(0x10, () => 0xffff_ffff),
  shared(0x80, groups),
  shared(0x100, setEnable),
  shared(0x180, clearEnable),
  shared(0x200, setPending),
  shared(0x280, nothing),
  shared(0x300, setActive),
  shared(0x380, clearActive),
  shared(0x400, priorities),
  shared(0x800, { ...nothing, bits: 8 }),
  shared(0xc00, configurations),
  shared(0xd00, nothing),
  routes,
  identifiers,
]

/** Revisions from 3 on announce that an LPI can be invalidated by a register. */
const GICR_CTLR_REVISION_3 = 0b110

/** The number of a vCPU, and whether its redistributor is the last one. */
function typeOf({ vcpu }: Place): bigint {
  const affinity = affinityOf(vcpu) & 0xff_ffffn
  const { showsLast } = vcpu.vm.host.gic
  const isLast = showsLast && [...vcpu.vm.vcpus.values()].at(-1) === vcpu ? 1n << 4n : 0n
  return (affinity << 32n) | (BigInt(vcpu.id & 0xffff) << 8n) | isLast
}

/** A register of 64 bits, in two words. */
function double(
  at: number,
  read: (place: Place) => bigint,
  write: (place: Place, value: bigint) => void,
): Region {
  return {
    at,
    size: 8,
    bits: 0,
    read: (place, word) => Number(BigInt.asUintN(32, read(place) >> BigInt(32 * word))),
    write(place, word, value) {
      const shift = BigInt(32 * word)
      write(place, (read(place) & ~(0xffff_ffffn << shift)) | (BigInt(value) << shift))
      return 0
    },
  }
}

const INNER_SHAREABLE = 1n
const OUTER_SHAREABLE = 2n
/** Write-back, allocated by reads. */
const READ_ALLOCATE = 3n

/** Replaces what KVM's tables cannot be: outer shareable, or memory that is not cached inside (`vgic_sanitise_field`). */
function sanitise(value: bigint, kept: bigint): bigint {
  const shareability = (value >> 10n) & 3n
  const inner = (value >> 7n) & 7n
  const outer = (value >> 56n) & 7n
  const fields = (shareability === OUTER_SHAREABLE ? INNER_SHAREABLE : shareability) << 10n
  const caches = (inner <= 1n ? READ_ALLOCATE : inner) << 7n
  return (
    ((value & ~((3n << 10n) | (7n << 7n) | (7n << 56n))) |
      fields |
      caches |
      ((outer <= 1n ? outer : 0n) << 56n)) &
    kept
  )
}

const PROPBASER = 0x070f_ffff_ffff_ff9fn
const PENDBASER = 0x470f_ffff_ffff_0f80n
/** The guest's note that the table is zero, which does not read back. */
const PENDBASER_PTZ = 1n << 62n

const redistributor: readonly Region[] = [
  constant(0x0, ({ gic }) => (gic.revision >= 3 ? GICR_CTLR_REVISION_3 : 0)),
  constant(0x4, () => IIDR),
  double(0x8, typeOf, () => {}),
  ignored(0x14),
  double(
    0x70,
    ({ gic }) => gic.propertyTable,
    ({ gic }, value) => (gic.propertyTable = sanitise(value, PROPBASER)),
  ),
  double(
    0x78,
    ({ vcpu }) => vcpu.pendingTable & ~PENDBASER_PTZ,
    ({ vcpu }, value) => (vcpu.pendingTable = sanitise(value, PENDBASER)),
  ),
  { ...ignored(0xa0, 8), isNew: true },
  { ...ignored(0xb0, 8), isNew: true },
  { ...ignored(0xc0), isNew: true },
  identifiers,
  own(0x80, groups),
  own(0x100, setEnable),
  own(0x180, clearEnable),
  own(0x200, setPending),
  own(0x280, nothing),
  own(0x300, setActive),
  own(0x380, clearActive),
  own(0x400, priorities),
  own(0xc00, fixedConfigurations),
  ignored(SGI_FRAME + 0xd00),
  ignored(SGI_FRAME + 0xe00),
]

/** Returns the region of an offset; undefined where there is none, and beyond the interrupts of the GIC. */
function find(regions: readonly Region[], gic: Gic, offset: number): Region | undefined {
  if (offset % 4 !== 0) return undefined
  const region = regions.find(({ at, size }) => offset >= at && offset < at + size)
  if (region?.isNew && !gic.model.invalidatesByRegister) return undefined
  if (region === undefined || region.bits === 0) return region
  const interrupt = Math.floor(((offset - region.at) * 8) / region.bits)
  return interrupt < gic.spis + PRIVATE_INTERRUPTS ? region : undefined
}

export type Frame = 'distributor' | 'redistributor'

const frames: Record<Frame, readonly Region[]> = { distributor, redistributor }

export function hasFrameRegister(frame: Frame, gic: Gic, offset: number): boolean {
  return find(frames[frame], gic, offset) !== undefined
}

/** Returns 0 where there is no register. */
export function readFrame(frame: Frame, place: Place, offset: number): number {
  const region = find(frames[frame], place.gic, offset)
  return region === undefined ? 0 : region.read(place, (offset - region.at) / 4)
}

/** Returns 0 or `-errno`; ignores a write where there is no register. */
export function writeFrame(frame: Frame, place: Place, offset: number, value: number): number {
  const region = find(frames[frame], place.gic, offset)
  return region === undefined ? 0 : region.write(place, (offset - region.at) / 4, value)
}
