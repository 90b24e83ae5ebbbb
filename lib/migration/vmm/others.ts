/** VMMs whose source was read: this project has not observed any of these rules in operation. */
import { decodeRegister } from '../../registers/index.js'
import { unforgiving, type VmmRules } from './rules.js'

const known = 'read'

export const firecracker: VmmRules = {
  name: 'firecracker',
  rows: [
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
  ],
  carries: () => true,
  on: unforgiving,
}

export const cloudHypervisor: VmmRules = {
  name: 'cloud-hypervisor',
  rows: [
    {
      rule: 'core, system and SVE registers are saved, and a register of a space it does not know ends the save',
      source: 'hypervisor/src/kvm/mod.rs:state',
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
  ],
  carries: () => true,
  on: unforgiving,
}

export const crosvm: VmmRules = {
  name: 'crosvm',
  rows: [
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
      rule: 'SVE registers are not saved',
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
  carries: (id) => !['bitmap', 'sve'].includes(decodeRegister(id).space),
  on: unforgiving,
}
