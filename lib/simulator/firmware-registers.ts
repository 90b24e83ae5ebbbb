/** The pseudo-registers of KVM's firmware (`arch/arm64/kvm/hypercalls.c:kvm_arm_set_fw_reg`, `kvm_arm_set_fw_reg_bmap`). */
import { decodeRegister, encodeRegister, fieldMask, registerField, U64 } from '../registers/index.js'
import type { ReportedRegister } from '../report/report.js'
import { WriteInterpreter, type WriteRule } from '../report/write-rule.js'
import { errnos, featureWord } from '../uapi.js'
import type { Register, VcpuState } from './state.js'

const PSCI_VERSION = encodeRegister('KVM_REG_ARM_PSCI_VERSION')
const ID_AA64PFR1_EL1 = encodeRegister('ID_AA64PFR1_EL1')
const SSBS = fieldMask(registerField(ID_AA64PFR1_EL1, 'SSBS'))
const PSCI_0_1 = 1n

/** The VM's PSCI version, seen only by vCPUs with `psci-0.2`; the others have PSCI 0.1. */
class PsciVersionRegister implements Register {
  readonly limit = U64
  readonly #latest: bigint
  readonly #rule: WriteInterpreter

  constructor(latest: bigint, rule: WriteRule | undefined) {
    this.#latest = latest
    this.#rule = new WriteInterpreter(rule, latest)
  }

  read(vcpu: VcpuState): bigint {
    return hasPsci(vcpu) ? (vcpu.vm.psciVersion ?? this.#latest) : PSCI_0_1
  }

  write(vcpu: VcpuState, value: bigint): number {
    if (!hasPsci(vcpu) && value !== PSCI_0_1) return -errnos.EINVAL
    const outcome = hasPsci(vcpu) ? this.#rule.write(this.read(vcpu), value) : value
    if (typeof outcome === 'number') return outcome
    // A vCPU without the feature can write it too: on hosts where vCPUs may differ in it, one with the feature then reads PSCI 0.1.
    vcpu.vm.psciVersion = outcome
    return 0
  }
}

function hasPsci(vcpu: VcpuState): boolean {
  return (vcpu.features & featureWord(['psci-0.2'])) !== 0
}

/** The state of a mitigation, which may depend on whether the VM has SSBS. */
class MitigationRegister implements Register {
  readonly limit = U64
  readonly #state: Mitigation
  readonly #withoutSsbs: Mitigation | null

  constructor(value: bigint, rule: Extract<WriteRule, { rule: 'checked' }>) {
    const { withoutSsbs } = rule
    this.#state = { value, rule: new WriteInterpreter(rule, value) }
    this.#withoutSsbs = withoutSsbs
      ? {
          value: BigInt(withoutSsbs.value),
          rule: new WriteInterpreter({ ...rule, accepts: withoutSsbs.accepts }, BigInt(withoutSsbs.value)),
        }
      : null
  }

  read(vcpu: VcpuState): bigint {
    return this.#of(vcpu).value
  }

  write(vcpu: VcpuState, written: bigint): number {
    const { value, rule } = this.#of(vcpu)
    const outcome = rule.write(value, written)
    return typeof outcome === 'number' ? outcome : 0
  }

  #of(vcpu: VcpuState): Mitigation {
    if (this.#withoutSsbs === null) return this.#state
    const features = vcpu.file!.byId.get(ID_AA64PFR1_EL1)?.read(vcpu)
    return features !== undefined && (BigInt(features) & SSBS) === 0n ? this.#withoutSsbs : this.#state
  }
}

interface Mitigation {
  value: bigint
  rule: WriteInterpreter
}

/** The services of one owner that the guest may discover; the register is shared by the whole VM. */
class BitmapRegister implements Register {
  readonly limit = U64
  readonly #id: bigint
  readonly #reset: bigint
  readonly #rule: WriteInterpreter

  constructor(id: bigint, reset: bigint, rule: WriteRule | undefined) {
    this.#id = id
    this.#reset = reset
    this.#rule = new WriteInterpreter(rule, reset)
  }

  read({ vm }: VcpuState): bigint {
    return vm.bitmaps.get(this.#id) ?? this.#reset
  }

  write(vcpu: VcpuState, value: bigint): number {
    const { vm } = vcpu
    const outcome = this.#rule.write(this.read(vcpu), value, vm.hasRun ? vm.host.traits.bitmapAfterRun : null)
    if (typeof outcome === 'number') return outcome
    vm.bitmaps.set(this.#id, outcome)
    return 0
  }
}

/** Returns the register if it is a firmware register, else undefined. */
export function firmwareRegister({ id, value, write }: ReportedRegister): Register | undefined {
  const number = BigInt(id)
  if (number === PSCI_VERSION) return new PsciVersionRegister(BigInt(value!), write)
  if (decodeRegister(number).space === 'bitmap') return new BitmapRegister(number, BigInt(value!), write)
  return write?.rule === 'checked' ? new MitigationRegister(BigInt(value!), write) : undefined
}
