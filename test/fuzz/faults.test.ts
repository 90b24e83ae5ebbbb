/** Plants faults in the simulator, one at a time, and lets the fuzzer find each. */
import assert from 'node:assert/strict'
import { describe, it } from 'vitest'
import type { Backend, DeviceFd, VcpuFd, VmFd } from '../../lib/backend.js'
import { encodeRegister } from '../../lib/registers/index.js'
import type { Report } from '../../lib/report/report.js'
import { builtInReport, simulator } from '../../lib/hosts/index.js'
import {
  capabilities,
  errnos,
  exitReasons,
  irqTypes,
  KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS,
  KVM_DEV_ARM_VGIC_GRP_DIST_REGS,
  KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO,
  KVM_DEV_ARM_VGIC_GRP_NR_IRQS,
  KVM_DEV_ARM_VGIC_GRP_REDIST_REGS,
  packGsiRoutes,
  unpackGsiRoutes,
} from '../../lib/uapi.js'
import { fuzz, type Profile } from '../../lib/fuzz/index.js'
import { altered, open } from './backends.js'
import { rowOf, ruleOf } from '../report/rows.js'

/** Calls within which every fault must show. */
const OPERATIONS = 100_000

const hex = (name: string): string => `0x${encodeRegister(name).toString(16)}`
const idAndName = (name: string) => ({ id: hex(name), name })
const STD_BMAP = encodeRegister('KVM_REG_ARM_STD_BMAP')
const VENDOR_HYP_BMAP = encodeRegister('KVM_REG_ARM_VENDOR_HYP_BMAP')
const PSCI_VERSION = encodeRegister('KVM_REG_ARM_PSCI_VERSION')

/** A report in which something is not as it was. */
function mutated(report: Report, mutate: (copy: Report) => void): Backend {
  const copy = structuredClone(report)
  mutate(copy)
  assert.notDeepEqual(copy, report)
  return simulator(copy)
}

const host = builtInReport('linux-6.12-max')
const oldHost = builtInReport('linux-5.10-max')
const newHost = builtInReport('linux-7.2-max')
/** One whose KVM loads registers with the guest. */
const hostAtEl1 = builtInReport('linux-6.12-cortex-a57')

const keepsWhole =
  (registers: RegExp) =>
  ({ traits }: Report): void => {
    traits.lossyRegisters = traits.lossyRegisters.filter(({ name }) => !registers.test(name))
  }

const PSCI = 'KVM_REG_ARM_PSCI_VERSION'
const WORKAROUND = 'KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_'

/** Faults in what the simulator is told: the gate, the order of checks, scope and time of a rule. */
const inTheReport: [what: string, report: Report, mutate: (copy: Report) => void][] = [
  [
    'a bitmap allows one bit more',
    host,
    (report) => (ruleOf(report, 'KVM_REG_ARM_STD_BMAP', 'subset').of = '0x3'),
  ],
  [
    'a bitmap allows one bit less',
    host,
    (report) => (ruleOf(report, 'KVM_REG_ARM_VENDOR_HYP_BMAP', 'subset').of = '0x1'),
  ],
  [
    'a bitmap resets to another value',
    newHost,
    (report) => (rowOf(report, 'KVM_REG_ARM_VENDOR_HYP_BMAP_2').value = '0x3'),
  ],
  ['a bitmap is frozen even for the same value', host, ({ traits }) => (traits.bitmapAfterRun = 'busy')],
  ['a bitmap is never frozen', host, ({ traits }) => (traits.bitmapAfterRun = 'unguarded')],
  ['ID registers are never frozen', host, ({ traits }) => (traits.idRegisterAfterRun = 'unguarded')],
  ['a version of PSCI is missing', host, (report) => void ruleOf(report, PSCI, 'values').accepts.pop()],
  [
    'a version of PSCI is too many',
    host,
    (report) => void ruleOf(report, PSCI, 'values').accepts.push('0x10004'),
  ],
  ['a workaround reads another level', host, (report) => (rowOf(report, `${WORKAROUND}1`).value = '0x1')],
  [
    'a workaround accepts one level less',
    host,
    (report) => void ruleOf(report, `${WORKAROUND}3`, 'checked').accepts.pop(),
  ],
  [
    'WORKAROUND_2 does not follow SSBS',
    host,
    (report) => delete ruleOf(report, `${WORKAROUND}2`, 'checked').withoutSsbs,
  ],
  [
    'a wrong width is told after the value is read',
    host,
    ({ traits }) => (traits.firmwareWidthChecked = false),
  ],
  [
    'a system register is looked up before the value is read',
    host,
    ({ traits }) => (traits.setReadsValueFirst.systemRegister = false),
  ],
  [
    'an unknown space is looked up before the value is read',
    host,
    ({ traits }) => (traits.setReadsValueFirst.unknownSpace = false),
  ],
  [
    'a faulting write leaves the register alone',
    oldHost,
    ({ traits }) => (traits.faultingSetZeroes = !traits.faultingSetZeroes),
  ],
  [
    'vCPU events ask for an init',
    host,
    ({ traits }) => (traits.vcpuEventsNeedInit = !traits.vcpuEventsNeedInit),
  ],
  [
    'an empty filter range at 0 has another errno',
    host,
    ({ traits }) => (traits.smcccFilter = { emptyRangeAtZero: 'EEXIST' }),
  ],
  ['KVM_IRQ_LINE finds a vCPU by its index', host, ({ traits }) => (traits.irqLineByIndex = true)],
  ['KVM_IRQ_LINE finds a vCPU by its id', oldHost, ({ traits }) => delete traits.irqLineByIndex],
  [
    'an interrupt that cannot be is EINVAL before the GIC is initialised',
    newHost,
    ({ traits }) => delete traits.irqLineChecksInitFirst,
  ],
  ['there is no SMCCC filter', host, ({ traits }) => (traits.smcccFilter = null)],
  ['features are each vCPU’s own', host, ({ traits }) => (traits.init.scope = 'vcpu')],
  ['features are the whole VM’s', oldHost, ({ traits }) => (traits.init.scope = 'vm')],
  ['power-off must be repeated', host, ({ traits }) => (traits.init.powerOff = 'sticky')],
  [
    'a refused init leaves nothing behind',
    oldHost,
    ({ traits }) => (traits.init.leaksRefusedFeatures = false),
  ],
  ['one more feature bit is known', host, ({ traits }) => traits.init.knownFeatures++],
  ['one more target is known', host, ({ traits }) => void traits.init.targets.push(1)],
  ['a PMU need not be initialised', host, ({ traits }) => (traits.runWithoutPmuInit = null)],
  [
    'a GIC without addresses leaves the VM alive',
    host,
    ({ traits }) => (traits.runWithoutVgicInit = { errno: 'ENXIO', killsVm: false }),
  ],
  [
    'a GIC has its address before a second one is looked at',
    oldHost,
    ({ traits }) => delete traits.vgicAddressCheckedFirst,
  ],
  [
    'a vCPU has AArch32 of an init that was refused, and no other is compared with it',
    builtInReport('linux-5.10-neoverse-n1'),
    ({ traits }) => delete traits.init.registerWidth,
  ],
  [
    'the host’s own registers are in their space alone',
    host,
    ({ registers }) => {
      const place = registers.findIndex(({ name }) => name === 'DBGBVR0_EL1')
      registers.unshift(...registers.splice(place, 1))
    },
  ],
  ['the first run changes no ID register', newHost, ({ traits }) => delete traits.changedByFirstRun],
  ['a GIC changes no ID register', newHost, ({ traits }) => delete traits.changedByVgic],
  ['an init takes a pending SError back', host, ({ traits }) => (traits.init.keepsSError = false)],
  ['a pending SError outlives an init', oldHost, ({ traits }) => (traits.init.keepsSError = true)],
  [
    'a pending SError is dropped when guest code runs',
    newHost,
    ({ traits }) => (traits.sErrorDropped = true),
  ],
  ['a pending SError wakes no vCPU', newHost, ({ traits }) => (traits.sErrorWakes = false)],
  [
    'a field of an ID register hides a register',
    newHost,
    ({ traits }) =>
      (traits.hiddenRegisters = [
        {
          ...idAndName('ID_AA64PFR0_EL1'),
          nibble: '3:0',
          values: '1',
          hides: ['TPIDR_EL1', 'VBAR_EL1', 'MAIR_EL1', 'TCR_EL1', 'TTBR0_EL1', 'ESR_EL1', 'FAR_EL1'].map(
            idAndName,
          ),
        },
      ]),
  ],
  [
    'a stopped vCPU loads no register',
    oldHost,
    ({ traits }) => traits.lossyRegisters.forEach((register) => (register.by = 'guest')),
  ],
  ['a register comes back whole from a run', host, keepsWhole(/^AMAIR_EL1$/)],
  ['a register comes back whole from the guest', hostAtEl1, keepsWhole(/^AMAIR_EL1$/)],
  ['a timer’s control comes back whole from a run', newHost, keepsWhole(/_CTL$/)],
  ['flags count as a mode', oldHost, ({ traits }) => (traits.narrowedRegisters = 'by-flags')],
  ['a device is missing', host, ({ traits }) => void traits.devices!.pop()],
  ['a timer has another interrupt', host, ({ traits }) => (traits.timers.interrupts[2] = 27)],
  ['a timer less has an interrupt', host, ({ traits }) => void traits.timers.interrupts.pop()],
  ['timers’ interrupts are the VM’s', oldHost, ({ traits }) => (traits.timers.scope = 'vm')],
  ['timers’ interrupts are each vCPU’s own', host, ({ traits }) => (traits.timers.scope = 'vcpu')],
  ['fewer events can be filtered', host, ({ traits }) => (traits.pmu!.filter!.events = 0x400)],
  ['events cannot be filtered', oldHost, ({ traits }) => (traits.pmu!.filter = null)],
  ['a PMU cannot be chosen', host, ({ traits }) => (traits.pmu!.ids = null)],
  ['another PMU can be chosen', host, ({ traits }) => void traits.pmu!.ids!.push(6)],
  ['a PMU has a counter more', newHost, ({ traits }) => traits.pmu!.counters!++],
  ['a guest finds a service less', host, ({ traits }) => void traits.hypercalls.services.pop()],
  ['smc is not answered', host, ({ traits }) => (traits.hypercalls.smc = false)],
  ['smc is answered', oldHost, ({ traits }) => (traits.hypercalls.smc = true)],
  ['stray bits of an affinity are dropped', host, ({ traits }) => (traits.hypercalls.affinityMasked = true)],
  [
    'of vCPUs with one affinity the first is meant',
    newHost,
    ({ traits }) => (traits.hypercalls.sameAffinity = 'first'),
  ],
  ['a register is missing from the list', host, ({ registers }) => void registers.splice(200, 1)],
  [
    'two registers are listed in the other order',
    host,
    ({ registers }) => void registers.splice(100, 2, registers[101]!, registers[100]!),
  ],
  [
    'a register resets to another value',
    host,
    ({ registers }) => (registers.find(({ id }) => id === hex('MIDR_EL1'))!.value = '0x0'),
  ],
  [
    'an ID register accepts one value more',
    host,
    (report) => (ruleOf(report, 'ID_AA64PFR0_EL1', 'nibbles').accepts['3:0'] = '0-f'),
  ],
  ['a writable mask lacks a bit', host, (report) => (rowOf(report, 'ID_MMFR0_EL1').mask = '0x7fffffff')],
  [
    'a capability answers one more',
    host,
    (report) => (report.capabilities.KVM_CAP_GUEST_DEBUG_HW_BPS![1] += 1),
  ],
  ['capabilities without a name answer 0', host, (report) => (report.otherCapabilities = {})],
]

/** Faults in what the simulator is told of GICs. */
const inTheReportOfGics: typeof inTheReport = [
  ['a revision that is written is kept', host, ({ traits }) => (traits.gicRevisionKept = true)],
  [
    'a revision that is written is not kept',
    builtInReport('linux-6.18-max'),
    ({ traits }) => delete traits.gicRevisionKept,
  ],
]

/** Faults in how the simulator works, planted in what its handles answer. */
const inTheCode: [what: string, vcpu: (fd: VcpuFd) => Partial<VcpuFd>][] = [
  [
    'ENOENT and EINVAL are swapped',
    (fd) => ({
      setOneReg: (id, value) => {
        const outcome = fd.setOneReg(id, value)
        return outcome === -errnos.ENOENT ? -errnos.EINVAL : outcome
      },
    }),
  ],
  [
    'EBUSY is told before an illegal bit',
    (fd) => ({
      setOneReg: (id, value) => {
        const outcome = fd.setOneReg(id, value)
        if (id !== VENDOR_HYP_BMAP || outcome !== -errnos.EINVAL) return outcome
        const before = fd.getOneReg(id)
        return fd.setOneReg(id, typeof before === 'bigint' ? before ^ 1n : 0n) === -errnos.EBUSY
          ? -errnos.EBUSY
          : outcome
      },
    }),
  ],
  ['a bad pointer is never looked at', (fd) => ({ setOneRegAtNull: (id) => fd.setOneReg(id, 0n) })],
  [
    'ENOEXEC comes after EFAULT',
    (fd) => ({
      getOneRegAtNull: (id) => {
        const outcome = fd.getOneRegAtNull(id)
        return outcome === -errnos.ENOEXEC ? -errnos.EFAULT : outcome
      },
    }),
  ],
  ['a bitmap is each vCPU’s own', (fd) => perVcpu(fd, STD_BMAP)],
  ['the PSCI version is each vCPU’s own', (fd) => perVcpu(fd, PSCI_VERSION)],
  [
    'only the vCPU that ran is frozen',
    (fd) => {
      let hasRun = false
      return {
        runSync: (timeout) => {
          hasRun = true
          return fd.runSync(timeout)
        },
        setOneReg: (id, value) => {
          const outcome = fd.setOneReg(id, value)
          return outcome === -errnos.EBUSY && !hasRun ? 0 : outcome
        },
      }
    },
  ],
  [
    'a second finalize succeeds',
    (fd) => ({ finalize: (feature) => (feature === 4 ? Math.max(0, fd.finalize(4)) : fd.finalize(feature)) }),
  ],
  [
    'the count is not told with E2BIG',
    (fd) => ({
      getRegList: (list) => {
        const room = list[0]!
        const outcome = fd.getRegList(list)
        if (outcome === -errnos.E2BIG) list[0] = room
        return outcome
      },
    }),
  ],
  [
    'a write is one bit off',
    (fd) => ({
      setOneReg: (id, value) => fd.setOneReg(id, id === 0x6030_0000_0010_0002n ? value ^ 1n : value),
    }),
  ],
  [
    'the power state is not kept',
    (fd) => ({ setMpState: (state) => (state === 5 ? fd.setMpState(0) : fd.setMpState(state)) }),
  ],
  [
    'a call of the guest leaves its power state',
    (fd) => ({
      runSync: (timeout) => {
        const before = fd.getMpState()
        const outcome = fd.runSync(timeout)
        if (before === 0) fd.setMpState(0)
        return outcome
      },
    }),
  ],
  ['a control of debugging is not looked at', () => ({ setGuestDebug: () => 0 })],
  [
    'a statistic counts another unit',
    (fd) => ({
      getStatsFd: () => {
        const stats = fd.getStatsFd()
        if (typeof stats === 'number') return stats
        return altered(stats, {
          read: (offset, into) => {
            const read = stats.read(offset, into)
            if (into.length > 1000) into[4 * 64] = 0
            return read
          },
        })
      },
    }),
  ],
  ['x1 of a call is left', (fd) => afterCall(fd, 'x1', () => 7n)],
  ['a result code is cut to 32 bits', (fd) => afterCall(fd, 'x0', (x0) => BigInt.asUintN(32, x0))],
  ['random bits are one too many', (fd) => afterCall(fd, 'x3', (x3) => x3 << 1n)],
  [
    'a run with immediate_exit ends like any other',
    (fd) => ({ runSync: (timeout) => (fd.runSync(timeout) === -errnos.EINTR ? 0 : fd.runSync(timeout)) }),
  ],
]

/** Faults in how the simulator's VMs work. */
const inTheVms: [what: string, vm: (fd: VmFd) => Partial<VmFd>][] = [
  [
    'a log is never empty',
    (fd) => ({
      getDirtyLog: (slot, bitmap) => {
        const outcome = fd.getDirtyLog(slot, bitmap)
        if (outcome === 0) bitmap[0]! |= 1n
        return outcome
      },
    }),
  ],
  ['nothing clears a log', () => ({ clearDirtyLog: () => 0 })],
  [
    'a log without a slot is EINVAL',
    (fd) => ({
      getDirtyLog: (slot, bitmap) => {
        const outcome = fd.getDirtyLog(slot, bitmap)
        return outcome === -errnos.ENOENT ? -errnos.EINVAL : outcome
      },
    }),
  ],
  [
    'the word beside a counter’s offset is not looked at',
    (fd) => ({ setCounterOffset: (offset) => fd.setCounterOffset(offset, 0n) }),
  ],
  ['every event is accepted', (fd) => ({ ioEventFd: (...args) => Math.max(0, fd.ioEventFd(...args)) })],
  [
    'a second doorbell at one place is accepted',
    (fd) => ({
      ioEventFd: (...args) => {
        const outcome = fd.ioEventFd(...args)
        return outcome === -errnos.EEXIST ? 0 : outcome
      },
    }),
  ],
  [
    'the value of a doorbell is not looked at',
    (fd) => ({ ioEventFd: (event, address, size, flags) => fd.ioEventFd(event, address, size, flags, 0n) }),
  ],
  [
    'an event raises two interrupts',
    (fd) => ({
      irqFd: (...args) => {
        const outcome = fd.irqFd(...args)
        return outcome === -errnos.EBUSY ? 0 : outcome
      },
    }),
  ],
  [
    'an event raises an interrupt without a GIC',
    (fd) => ({
      irqFd: (...args) => {
        const outcome = fd.irqFd(...args)
        return outcome === -errnos.EAGAIN ? 0 : outcome
      },
    }),
  ],
  ['a message needs no GIC', () => ({ signalMsi: () => -errnos.ENODEV })],
  [
    'flags of a message are not looked at',
    (fd) => ({ signalMsi: (address, data, _, device) => fd.signalMsi(address, data, 0, device) }),
  ],
  ['routes are not looked at', () => ({ setGsiRouting: () => 0 })],
  [
    'the flags of routes are not looked at',
    (fd) => ({ setGsiRouting: (_, routes) => fd.setGsiRouting(0, routes) }),
  ],
  [
    'an interrupt may have two routes',
    (fd) => ({
      setGsiRouting: (flags, routes) => {
        const gsis = new Set(unpackGsiRoutes(routes).map(({ gsi }) => gsi))
        const distinct = unpackGsiRoutes(routes).filter(({ gsi }) => gsis.delete(gsi))
        return fd.setGsiRouting(flags, packGsiRoutes(distinct))
      },
    }),
  ],
  [
    'ports are coalesced as memory',
    (fd) => ({ registerCoalescedMmio: (address, size) => fd.registerCoalescedMmio(address, size, 0) }),
  ],
  [
    'a zone that is not there cannot be removed',
    (fd) => ({
      unregisterCoalescedMmio: (address, size, pio) =>
        fd.unregisterCoalescedMmio(address, size, pio) || (size === 8 ? -errnos.ENOENT : 0),
    }),
  ],
  [
    'rings are reset that are not there',
    (fd) => ({ resetDirtyRings: () => Math.max(0, fd.resetDirtyRings()) }),
  ],
  [
    'a ring may be larger than the host’s most',
    (fd) => ({
      enableCap: (...args) => {
        const outcome = fd.enableCap(...args)
        return outcome === -errnos.E2BIG ? -errnos.EINVAL : outcome
      },
    }),
  ],
  [
    'the flags of a ring are looked at',
    (fd) => ({
      enableCap: (capability, flags, args) =>
        capability === capabilities.KVM_CAP_DIRTY_LOG_RING_ACQ_REL && flags !== 0
          ? -errnos.EINVAL
          : fd.enableCap(capability, flags, args),
    }),
  ],
  [
    'all bits of a ring’s size are looked at',
    (fd) => ({
      enableCap: (capability, flags, args) =>
        capability === capabilities.KVM_CAP_DIRTY_LOG_RING_ACQ_REL && (args[0] ?? 0n) >> 32n !== 0n
          ? -errnos.EINVAL
          : fd.enableCap(capability, flags, args),
    }),
  ],
  [
    'slots with a ring have bitmaps',
    (fd) => ({
      getDirtyLog: (slot, bitmap) => {
        const outcome = fd.getDirtyLog(slot, bitmap)
        return outcome === -errnos.ENXIO ? -errnos.ENOENT : outcome
      },
    }),
  ],
  ['a VM without tags has no memory with any', () => ({ copyMteTags: () => -errnos.EFAULT })],
  ['a VM has no statistics', () => ({ getStatsFd: () => -errnos.EINVAL })],
  ['a raised input is not seen', () => ({ irqLine: () => 0 })],
  ['an input stays raised', (fd) => ({ irqLine: (irq, level) => fd.irqLine(irq, irq < 2 ? 1 : level) })],
  [
    'an interrupt before the GIC’s initialisation is dropped',
    (fd) => ({
      irqLine: (irq, level) => {
        const outcome = fd.irqLine(irq, level)
        return outcome === -errnos.EBUSY ? 0 : outcome
      },
    }),
  ],
  [
    'an interrupt that the GIC does not have is dropped',
    (fd) => ({
      irqLine: (irq, level) => {
        const outcome = fd.irqLine(irq, level)
        return outcome === -errnos.EINVAL && irq >>> 24 === irqTypes.spi ? 0 : outcome
      },
    }),
  ],
]

const [DIST, REDIST, INTERFACE, LINES] = [
  KVM_DEV_ARM_VGIC_GRP_DIST_REGS,
  KVM_DEV_ARM_VGIC_GRP_REDIST_REGS,
  KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS,
  KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO,
]

/** Faults in how the simulator's GICs work. */
const inTheGics: [what: string, gic: (fd: DeviceFd) => Partial<DeviceFd>][] = [
  ['GICD_CTLR shows a bit more', (fd) => reads(fd, DIST, 0x0, (word) => word | 4)],
  ['GICD_TYPER shows an interrupt less', (fd) => reads(fd, DIST, 0x4, (word) => word - 1)],
  ['GICD_IIDR shows another revision', (fd) => reads(fd, DIST, 0x8, (word) => word ^ 0x1000)],
  ['GICD_STATUSR is zero', (fd) => reads(fd, DIST, 0x10, () => 0)],
  ['GICR_CTLR is zero', (fd) => reads(fd, REDIST, 0x0, () => 0)],
  ['no redistributor is the last', (fd) => reads(fd, REDIST, 0x8, (word) => word & ~0x10)],
  ['GICR_TYPER lacks the affinity', (fd) => reads(fd, REDIST, 0xc, () => 0)],
  ['GICR_PENDBASER shows PTZ', (fd) => reads(fd, REDIST, 0x7c, (word) => word | (1 << 30))],
  ['GICR_PENDBASER resets to zero', (fd) => reads(fd, REDIST, 0x78, (word) => (word === 0x580 ? 0 : word))],
  ['GICR_ICFGR0 is zero', (fd) => reads(fd, REDIST, 0x1_0c00, () => 0)],
  ['ICC_CTLR_EL1 shows a priority bit less', (fd) => reads(fd, INTERFACE, 0xc664, (word) => word ^ 0x100)],
  ['ICC_SRE_EL1 is zero', (fd) => reads(fd, INTERFACE, 0xc665, () => 0)],
  ['ICC_BPR1_EL1 ignores CBPR', (fd) => keeps(fd, INTERFACE, 0xc663, 7)],
  ['the lines of private interrupts are low', (fd) => reads(fd, LINES, 0, () => 0)],
  ['the lines of shared interrupts are low', (fd) => reads(fd, LINES, 32, () => 0)],
  ['GICD_CTLR keeps all bits', (fd) => keeps(fd, DIST, 0x0)],
  ['GICD_IIDR takes any revision', (fd) => accepts(fd, DIST, 0x8)],
  ['GICD_TYPER2 takes any value', (fd) => accepts(fd, DIST, 0xc)],
  ['ICC_CTLR_EL1 takes any value', (fd) => accepts(fd, INTERFACE, 0xc664)],
  ['ICC_SRE_EL1 can be cleared', (fd) => accepts(fd, INTERFACE, 0xc665)],
  ['GICD_ISENABLER1 clears too', (fd) => keeps(fd, DIST, 0x104)],
  ['GICD_ICENABLER1 is ignored', (fd) => writes(fd, DIST, 0x184, () => 0)],
  ['GICD_ISPENDR1 only sets', (fd) => writes(fd, DIST, 0x204, (word, before) => word | before)],
  ['GICD_ISACTIVER1 clears too', (fd) => keeps(fd, DIST, 0x304)],
  ['GICD_IGROUPR1 only sets', (fd) => writes(fd, DIST, 0x84, (word, before) => word | before)],
  ['a priority keeps 8 bits', (fd) => keeps(fd, DIST, 0x420)],
  ['GICD_ICFGR2 keeps both bits', (fd) => keeps(fd, DIST, 0xc08)],
  ['GICD_ICFGR2 keeps nothing', (fd) => writes(fd, DIST, 0xc08, (_, before) => before)],
  ['a route has an affinity level 3', (fd) => keeps(fd, DIST, 0x6104)],
  ['a private interrupt has a route', (fd) => keeps(fd, DIST, 0x6000)],
  ['GICR_PROPBASER keeps all bits', (fd) => keeps(fd, REDIST, 0x70)],
  ['GICR_IGRPMODR0 keeps what is written', (fd) => keeps(fd, REDIST, 0x1_0d00)],
  ['ICC_PMR_EL1 keeps its upper five bits', (fd) => writes(fd, INTERFACE, 0xc230, (word) => word & 0xf8)],
  [
    'registers are accessible before the initialisation',
    (fd) => ({
      getDeviceAttr: (group, attribute, data) => {
        const outcome = fd.getDeviceAttr(group, attribute, data)
        return outcome === -errnos.EBUSY ? 0 : outcome
      },
    }),
  ],
  [
    'registers of a vCPU that is not there are those of the first',
    (fd) => ({
      getDeviceAttr: (group, attribute, data) => {
        const outcome = fd.getDeviceAttr(group, attribute, data)
        const isOfVcpu = group === REDIST || group === INTERFACE
        if (outcome !== -errnos.EINVAL || !isOfVcpu) return outcome
        return fd.getDeviceAttr(group, attribute & 0xffff_ffffn, data)
      },
    }),
  ],
  [
    'registers exist beyond the interrupts',
    (fd) => ({
      hasDeviceAttr: (group, attribute) => {
        const outcome = fd.hasDeviceAttr(group, attribute)
        return group === DIST && outcome === -errnos.ENXIO && attribute < 0x1_0000n ? 0 : outcome
      },
    }),
  ],
  [
    'a misaligned register exists',
    (fd) => ({ hasDeviceAttr: (group, attribute) => fd.hasDeviceAttr(group, attribute & ~3n) }),
  ],
  [
    'a null address is seen before the vCPU',
    (fd) => ({
      setDeviceAttr: (group, attribute, data) => {
        const outcome = fd.setDeviceAttr(group, attribute, data)
        return outcome === -errnos.EINVAL && data === null ? -errnos.EFAULT : outcome
      },
    }),
  ],
  [
    'the number of interrupts can be set again',
    (fd) => ({
      setDeviceAttr: (group, attribute, data) => {
        const outcome = fd.setDeviceAttr(group, attribute, data)
        return outcome === -errnos.EBUSY && group === KVM_DEV_ARM_VGIC_GRP_NR_IRQS ? 0 : outcome
      },
    }),
  ],
]

const wordOf = (data: Uint8Array): number => new DataView(data.buffer, data.byteOffset).getUint32(0, true)

function setWord(data: Uint8Array, word: number): void {
  new DataView(data.buffer, data.byteOffset).setUint32(0, word >>> 0, true)
}

/** Whether an attribute is the register of a group, of any vCPU. */
function isRegister(attribute: bigint, register: number): boolean {
  return (attribute & 0xffff_ffffn) === BigInt(register)
}

/** A register of a GIC that is read otherwise. */
function reads(
  fd: DeviceFd,
  group: number,
  register: number,
  change: (word: number) => number,
): Partial<DeviceFd> {
  return {
    getDeviceAttr: (of, attribute, data) => {
      const outcome = fd.getDeviceAttr(of, attribute, data)
      const isIt = of === group && isRegister(attribute, register)
      if (isIt && outcome === 0) setWord(data, change(wordOf(data)))
      return outcome
    },
  }
}

/** A register of a GIC that is written otherwise. */
function writes(
  fd: DeviceFd,
  group: number,
  register: number,
  change: (word: number, before: number) => number,
): Partial<DeviceFd> {
  return {
    setDeviceAttr: (of, attribute, data) => {
      if (of !== group || !isRegister(attribute, register) || data === null) {
        return fd.setDeviceAttr(of, attribute, data)
      }
      const before = new Uint8Array(data.length)
      fd.getDeviceAttr(of, attribute, before)
      const changed = Uint8Array.from(data)
      setWord(changed, change(wordOf(data), wordOf(before)))
      return fd.setDeviceAttr(of, attribute, changed)
    },
  }
}

/** A register of a GIC that keeps all that is written, or the bits of `mask`. */
function keeps(fd: DeviceFd, group: number, register: number, mask = 0xffff_ffff): Partial<DeviceFd> {
  const words = new Map<bigint, number>()
  return {
    setDeviceAttr: (of, attribute, data) => {
      const outcome = fd.setDeviceAttr(of, attribute, data)
      const isIt = of === group && isRegister(attribute, register) && data !== null
      if (isIt && outcome === 0) words.set(attribute, wordOf(data) & mask)
      return outcome
    },
    getDeviceAttr: (of, attribute, data) => {
      const outcome = fd.getDeviceAttr(of, attribute, data)
      const word = of === group && isRegister(attribute, register) ? words.get(attribute) : undefined
      if (outcome === 0 && word !== undefined) setWord(data, word)
      return outcome
    },
  }
}

/** A register of a GIC that refuses no value. */
function accepts(fd: DeviceFd, group: number, register: number): Partial<DeviceFd> {
  return {
    setDeviceAttr: (of, attribute, data) => {
      const outcome = fd.setDeviceAttr(of, attribute, data)
      return of === group && isRegister(attribute, register) && outcome === -errnos.EINVAL ? 0 : outcome
    },
  }
}

/** A register that is read otherwise after a run that ended with the stub's store. */
function afterCall(fd: VcpuFd, name: string, change: (value: bigint) => bigint): Partial<VcpuFd> {
  const id = encodeRegister(name)
  const getOneReg = (wanted: bigint): bigint | number => {
    const value = fd.getOneReg(wanted)
    const exit = new DataView(fd.runPage).getUint32(8, true)
    return wanted === id && exit === exitReasons.KVM_EXIT_MMIO && typeof value === 'bigint'
      ? change(value)
      : value
  }
  return {
    getOneReg,
    getRegs: (ids, values, outcomes) => {
      const failures = fd.getRegs(ids, values, outcomes)
      const place = ids.indexOf(id)
      if (place >= 0) values[place] = BigInt.asUintN(64, getOneReg(id) as bigint)
      return failures
    },
  }
}

/** A register whose writes the vCPU's siblings do not see. */
function perVcpu(fd: VcpuFd, own: bigint): Partial<VcpuFd> {
  let kept: bigint | undefined
  return {
    getOneReg: (id) => {
      const value = fd.getOneReg(id)
      return id === own && typeof value === 'bigint' ? (kept ?? value) : value
    },
    setOneReg: (id, value) => {
      const outcome = fd.setOneReg(id, value)
      if (id === own && outcome === 0) kept = value
      return outcome
    },
  }
}

/** A backend whose vCPUs answer otherwise. */
function withVcpus(backend: Backend, change: (fd: VcpuFd) => Partial<VcpuFd>): Backend {
  return withVms(backend, (vm) => ({
    createVcpu: (id) => {
      const vcpu = vm.createVcpu(id)
      return typeof vcpu === 'number' ? vcpu : altered(vcpu, change(vcpu))
    },
  }))
}

/** A backend whose devices answer otherwise. */
function withGics(backend: Backend, change: (fd: DeviceFd) => Partial<DeviceFd>): Backend {
  return withVms(backend, (vm) => ({
    createDevice: (type, flags) => {
      const device = vm.createDevice(type, flags)
      return typeof device === 'number' ? device : altered(device, change(device))
    },
  }))
}

/** A backend whose VMs answer otherwise. */
function withVms(backend: Backend, change: (fd: VmFd) => Partial<VmFd>): Backend {
  return {
    ...backend,
    open: () => {
      const kvm = open(backend)
      return altered(kvm, {
        createVm: (type) => {
          const vm = kvm.createVm(type)
          return typeof vm === 'number' ? vm : altered(vm, change(vm))
        },
      })
    },
  }
}

/** Whether there is a difference, be it only where the calls are mostly about VMs and vCPUs, or about what else a machine has. */
function differs(
  real: Report,
  faulty: Backend,
  profiles: readonly Profile[] = ['everything', 'lifecycle', 'machine'],
): boolean {
  return profiles.some((profile) => {
    const options = { seed: 1, operations: OPERATIONS, profile }
    return fuzz(open(simulator(real)), open(faulty), options).next().done !== true
  })
}

describe('the fuzzer', () => {
  for (const report of [host, oldHost, newHost]) {
    it(`finds nothing where nothing is wrong, ${report.host.release}`, () => {
      assert.equal(differs(report, simulator(report)), false)
      assert.equal(differs(report, simulator(report), ['gic']), false)
    })
  }

  for (const [what, report, mutate] of inTheReport) {
    it(`finds that ${what}`, () => {
      assert.ok(differs(report, mutated(report, mutate)))
    })
  }

  for (const [what, change] of inTheCode) {
    it(`finds that ${what}`, () => {
      assert.ok(differs(host, withVcpus(simulator(host), change)))
    })
  }

  for (const [what, change] of inTheVms) {
    it(`finds that ${what}`, () => {
      assert.ok(differs(host, withVms(simulator(host), change)))
    })
  }

  for (const [what, report, mutate] of inTheReportOfGics) {
    it(`finds that ${what}`, () => {
      assert.ok(differs(report, mutated(report, mutate), ['gic']))
    })
  }

  for (const [what, change] of inTheGics) {
    it(`finds that ${what}`, () => {
      assert.ok(differs(host, withGics(simulator(host), change), ['gic']))
    })
  }
})
