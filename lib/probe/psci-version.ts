import { encodePsciVersion, type PsciVersion, psciVersions } from '../hypercalls/index.js'
import { kvmError } from '../kvm/errors.js'
import { KvmError, type Vcpu } from '../kvm/index.js'
import { encodeRegister } from '../registers/index.js'
import { errnos } from '../uapi.js'

const PSCI_VERSION = encodeRegister('KVM_REG_ARM_PSCI_VERSION')

/** A version that a vCPU with `psci-0.2` can have. */
export type ElectablePsciVersion = Exclude<PsciVersion, '0.1'>

export const electablePsciVersions = psciVersions.filter(
  (version): version is ElectablePsciVersion => version !== '0.1',
)

/**
 * Returns the versions that a vCPU accepts before its VM has started, and leaves the newest of them set.
 * @throws KvmError if the register cannot be written at all
 */
export function acceptedPsciVersions(vcpu: Vcpu): ElectablePsciVersion[] {
  return electablePsciVersions.filter((version) => accepts(vcpu, version))
}

/**
 * Sets the PSCI version that the guest of a VM sees, through any of its vCPUs, before the first run.
 * @throws KvmError `EINVAL` for a version that this host does not have; the message lists those it has
 */
export function electPsciVersion(vcpu: Vcpu, version: ElectablePsciVersion): void {
  if (accepts(vcpu, version)) return
  const accepted = acceptedPsciVersions(vcpu)
  throw kvmError(-errnos.EINVAL, {
    syscall: 'KVM_SET_ONE_REG',
    register: PSCI_VERSION,
    value: encodePsciVersion(version),
    vcpu: vcpu.id,
    remedy:
      accepted.length > 0
        ? `This host accepts PSCI ${accepted.join(', ')}`
        : 'This vCPU has no psci-0.2 and speaks PSCI 0.1 alone',
  })
}

function accepts({ registers }: Vcpu, version: ElectablePsciVersion): boolean {
  try {
    registers.set(PSCI_VERSION, encodePsciVersion(version))
    return true
  } catch (error) {
    if (error instanceof KvmError && error.code === 'EINVAL') return false
    throw error
  }
}
