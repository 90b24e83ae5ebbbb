/** VMMs whose source was read: this project has not observed any of these rules in operation. */
import { decodeRegister } from '../../registers/index.js'
import { unforgiving, type VmmRow, type VmmRules } from './rules.js'

const known = 'read'

/** A default microVM, without a CPU template. A template may add `sve` and pointer authentication, which are then saved with the VM. */
const firecrackers = {
  wants: [],
  gics: ['gic-v3', 'gic-v2'],
  restoresInto: 'saved',
  vectors: 'moved',
  writesBack: false,
  comparesCounters: false,
  pins: 'template',
  dropsRegisters: true,
  option: () => undefined,
  carries: () => true,
  on: unforgiving,
} as const satisfies Partial<VmmRules>

const firecrackerRows: readonly VmmRow[] = [
  {
    rule: 'the VM has psci-0.2 and what its CPU template adds, but never a PMU; it is restored with the features that were saved',
    source: 'src/vmm/src/arch/aarch64/vcpu.rs:KvmVcpu::configure, restore_state (UnsupportedPmuV3)',
    known,
  },
  {
    rule: 'the VM has a GICv3 where KVM can make one, else a GICv2; the state of one is not restored into the other',
    source: 'src/vmm/src/arch/aarch64/gic/mod.rs:create_gic',
    known,
  },
  {
    rule: 'the state of a GICv2 is saved',
    source: 'src/vmm/src/arch/aarch64/gic/gicv2/regs/mod.rs:save_state',
    known,
  },
  {
    rule: 'snapshot-editor edit-vmstate remove-regs removes registers from a snapshot',
    source: 'src/snapshot-editor/src/edit_vmstate.rs',
    known,
  },
  {
    rule: 'every register of KVM_GET_REG_LIST is saved, of every width',
    source: 'src/vmm/src/arch/aarch64/vcpu.rs:get_all_registers',
    known,
  },
  {
    rule: 'the first register that the destination lacks or refuses ends the restore',
    source: 'src/vmm/src/arch/aarch64/vcpu.rs:restore_state',
    known,
  },
  {
    rule: 'a register that only the destination has keeps its value, and nothing is read back',
    source: 'src/vmm/src/arch/aarch64/vcpu.rs:restore_state',
    known,
  },
]

export const firecracker: VmmRules = {
  ...firecrackers,
  name: 'firecracker@1.7',
  rows: [
    ...firecrackerRows,
    {
      rule: 'the versions that make an ITS save its registers and its tables',
      source: 'src/vmm/src/arch/aarch64/gic/gicv3/regs/mod.rs:save_state; its_regs.rs:its_save_tables',
      known,
    },
    {
      rule: 'vector lengths are restored before KVM_ARM_VCPU_FINALIZE',
      source: 'src/vmm/src/arch/aarch64/vcpu.rs:restore_state (pull 4413)',
      known,
    },
  ],
  cannotSave: [],
  parts: { 'gic-v2': 'carried', its: 'carried' },
}

export const firecracker6: VmmRules = {
  ...firecrackers,
  name: 'firecracker@1.6',
  rows: [
    ...firecrackerRows,
    {
      rule: 'the snapshot of a VM with SVE cannot be restored',
      source: 'src/vmm/src/arch/aarch64/vcpu.rs:restore_state (pull 4413 mends it)',
      known,
    },
  ],
  cannotSave: ['sve'],
  parts: { 'gic-v2': 'carried' },
}

const cloudHypervisors = {
  wants: ['pmu', 'sve'],
  gics: ['gic-v3'],
  restoresInto: 'own',
  parts: { its: 'carried' },
  vectors: 'moved',
  writesBack: false,
  pins: 'none',
  dropsRegisters: false,
  option: () => undefined,
  carries: () => true,
  on: unforgiving,
} as const satisfies Partial<VmmRules>

const cloudHypervisorRows: readonly VmmRow[] = [
  {
    rule: 'the VM has a PMU and SVE where the host has them, and no pointer authentication, on the source as on the destination',
    source: 'hypervisor/src/kvm/mod.rs:vcpu_set_processor_features; vmm/src/cpu.rs:Vcpu::init',
    known,
  },
  {
    rule: 'the VM has a GICv3 with an ITS',
    source: 'hypervisor/src/kvm/aarch64/gic/mod.rs:KvmGicV3Its',
    known,
  },
  {
    rule: 'the registers and the tables of the ITS are saved',
    source: 'hypervisor/src/kvm/aarch64/gic/mod.rs:state, save_data_tables',
    known,
  },
  {
    rule: 'a register that the destination lacks or refuses ends the restore',
    source: 'hypervisor/src/kvm/mod.rs:set_state',
    known,
  },
  {
    rule: 'a register that only the destination has keeps its value, and nothing is read back',
    source: 'hypervisor/src/kvm/mod.rs:set_state',
    known,
  },
]

export const cloudHypervisor: VmmRules = {
  ...cloudHypervisors,
  name: 'cloud-hypervisor@53',
  rows: [
    ...cloudHypervisorRows,
    {
      rule: 'core, system and SVE registers are saved, and a register of a space it does not know ends the save',
      source: 'hypervisor/src/kvm/mod.rs:state (pull 8268)',
      known,
    },
    {
      rule: 'a restore is refused where CNTFRQ_EL0 differs',
      source: 'vmm/src/vm.rs (pull 8343)',
      known,
    },
  ],
  cannotSave: [],
  comparesCounters: true,
}

export const cloudHypervisor52: VmmRules = {
  ...cloudHypervisors,
  name: 'cloud-hypervisor@52',
  rows: [
    ...cloudHypervisorRows,
    {
      rule: 'versions 42 to 52 switch SVE on and cannot save it',
      source: 'hypervisor/src/kvm/mod.rs:state (issue 8057; pull 8268 mends it)',
      known,
    },
  ],
  cannotSave: ['sve'],
  comparesCounters: false,
}

export const crosvm: VmmRules = {
  name: 'crosvm',
  rows: [
    {
      rule: 'the VM has a PMU and pointer authentication where the host has them, and SVE only on request',
      source: 'aarch64/src/lib.rs:vcpu_features; hypervisor/src/kvm/aarch64.rs:init',
      known,
    },
    {
      rule: 'the VM has a GICv3 where KVM can make one, else a GICv2, which cannot be saved',
      source: 'devices/src/irqchip/kvm/aarch64.rs:KvmKernelIrqChip::new, snapshot',
      known,
    },
    {
      rule: 'a VM with an ITS cannot be saved',
      source: 'devices/src/irqchip/kvm/aarch64.rs:snapshot',
      known,
    },
    {
      rule: 'core, system and cache registers and the firmware registers of coprocessor 0x14 are saved',
      source:
        'hypervisor/src/aarch64.rs:snapshot; hypervisor/src/kvm/aarch64.rs:hypervisor_specific_snapshot',
      known,
    },
    {
      rule: 'bitmaps of hypercall services (coprocessor 0x16) are not saved: the guest finds the destination’s defaults',
      source: 'hypervisor/src/kvm/aarch64.rs:hypervisor_specific_snapshot',
      known,
    },
    {
      rule: 'no register of SVE is saved: a VM with SVE loses its vector state',
      source: 'hypervisor/src/aarch64.rs:VcpuSnapshot',
      known,
    },
    {
      rule: 'the first register that the destination lacks or refuses ends the restore',
      source: 'hypervisor/src/aarch64.rs:restore',
      known,
    },
    {
      rule: 'nothing is read back',
      source: 'hypervisor/src/aarch64.rs:restore',
      known,
    },
  ],
  wants: ['pmu', 'ptrauth'],
  gics: ['gic-v3', 'gic-v2'],
  restoresInto: 'own',
  cannotSave: ['gic-v2', 'its'],
  parts: {},
  vectors: 'lost',
  writesBack: false,
  comparesCounters: false,
  pins: 'none',
  dropsRegisters: false,
  option: (setting) => (setting.what === 'without' && setting.feature === 'pmu' ? '--no-pmu' : undefined),
  carries: (id) => !['bitmap', 'sve'].includes(decodeRegister(id).space),
  on: unforgiving,
}
