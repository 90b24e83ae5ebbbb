import { encodeRegister } from '../../lib/registers/index.js'
import { bitmapsOf } from '../../lib/report/registers.js'
import type { Configuration, Refusal, Report, ReportedRegister } from '../../lib/report/report.js'
import type { Capability } from '../../lib/uapi.js'

/** The only bitmap register patch 2 of the series makes: `kvm_arm_fw_reg_ids` in the patch. */
const ONLY_BITMAP = encodeRegister('KVM_REG_ARM_STD_BMAP')

/** PSCI 1.1, the newest of 5.18: 1.2 and 1.3 came with 6.13 (commits 8be82d536a9f, 97413cea1c48). */
const NEWEST_PSCI = 0x10001n

/** Younger than the series (25 April 2022): both came to `Documentation/virt/kvm/api.rst` with 5.19. */
const YOUNGER_CAPABILITIES: readonly Capability[] = [
  'KVM_CAP_SYSTEM_EVENT_DATA',
  'KVM_CAP_ARM_SYSTEM_SUSPEND',
]

/**
 * The host of the seed: Linux 5.18-rc with patches 1 and 2 of "KVM: arm64: Add support for hypercall services selection", version 6
 * (Raghavendra Rao Ananta, 25 April 2022). No released kernel behaves so. It was never booted; what is told of it here
 * is read from the patch, and the rest is as in `base`, the nearest kernel that can be recorded.
 *
 * @param base report of Linux 6.1, which has the series in its merged form
 */
export function seedV6(base: Report): Report {
  const removed = bitmapsOf(base)
    .map(({ id }) => id)
    .filter((id) => BigInt(id) !== ONLY_BITMAP)
  const { traits } = base
  return {
    ...base,
    host: {
      release: 'seed-v6',
      build: `Linux 5.18-rc with version 6 of the hypercall services series, derived from ${base.host.release}`,
    },
    origin: { kind: 'derivation', from: 'linux-6.1-neoverse-n1' },
    capabilities: {
      ...base.capabilities,
      ...Object.fromEntries(YOUNGER_CAPABILITIES.map((name) => [name, [0, 0]])),
    },
    registers: base.registers.filter(({ id }) => !removed.includes(id)).map(withoutYoungerPsci),
    configurations: base.configurations.map((configuration) =>
      withoutRegisters(base, configuration, removed),
    ),
    traits: {
      ...traits,
      // kvm_arm_set_fw_reg_bmap in the patch: EBUSY once KVM_ARCH_FLAG_HAS_RAN_ONCE is set, whatever the value. Its author
      // in the thread: "Since v6, we return -EBUSY unconditionally". Commit 528ada2811ba softened that before 5.19.
      bitmapAfterRun: 'busy',
      // kvm_arm_set_fw_reg copies KVM_REG_SIZE(reg->id) bytes at once; the check is commit a25bc8486f9c (6.3 and stable).
      firmwareWidthChecked: false,
      // kvm_arm_sys_reg_set_reg read the value after it had found the register until 6.0.
      setReadsValueFirst: { systemRegister: false, unknownSpace: false },
      // Until 6.0 KVM copied the value from userspace directly into the register, and zeroed it where that faulted.
      faultingSetZeroes: true,
      // set_core_reg compared all of PSTATE with User and System mode until 6.10 (commit 947051e361d5, also in stable kernels).
      narrowedRegisters: 'by-flags',
      // kvm_arch_vcpu_ioctl asks for an initialised vCPU since 6.18 (commit 0aa1b76fe142, also in stable kernels).
      vcpuEventsNeedInit: false,
      // kvm_vgic_map_resources calls kvm_vm_dead since 6.12 (also in stable kernels); before, it destroyed the GIC alone.
      runWithoutVgicInit: traits.runWithoutVgicInit && { ...traits.runWithoutVgicInit, killsVm: false },
      // The first run clears bits of PMCR_EL0 since 6.2 (and in stable kernels); before, it did what they ask for and kept them.
      pmu: traits.pmu && { ...traits.pmu, firstRunKeeps: '0xffffffffffffffff' },
      // The filter came with 6.4, and with it the answers to calls by smc.
      smcccFilter: null,
      hypercalls: { ...traits.hypercalls, smc: false },
    },
  }
}

function withoutYoungerPsci(register: ReportedRegister): ReportedRegister {
  const { write } = register
  if (write?.rule !== 'values') return register
  return {
    ...register,
    write: { ...write, accepts: write.accepts.filter((version) => BigInt(version) <= NEWEST_PSCI) },
  }
}

/** The configuration with its added registers at their places in a list that lacks `removed`. */
function withoutRegisters(
  base: Report,
  configuration: Configuration | Refusal,
  removed: readonly string[],
): Configuration | Refusal {
  if ('refused' in configuration) return configuration
  const taken = new Set(configuration.added.map(({ index }) => index))
  const staying = base.registers.filter(({ id }) => !configuration.removed.includes(id)).map(({ id }) => id)
  const length = staying.length + taken.size
  let below = 0
  const shifts = Array.from({ length }, (_, index) => {
    if (!taken.has(index) && removed.includes(staying.shift()!)) below++
    return below
  })
  return {
    ...configuration,
    added: configuration.added.map((register) => ({
      ...register,
      index: register.index - shifts[register.index]!,
    })),
  }
}
