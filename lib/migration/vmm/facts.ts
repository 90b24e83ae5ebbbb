/** What a VMM finds out about a host, from its KVM or from its report. */
import { refuseAccident } from '../../kvm/errors.js'
import type { Kvm } from '../../kvm/index.js'
import { checkKvm } from '../../kvm/kvm.js'
import { CNTFRQ_EL0, guestRead, hasMte } from '../../report/machine.js'
import { deviceSupport, featureSupport, untriedFields, untriedValues } from '../../report/registers.js'
import type { Report } from '../../report/report.js'
import {
  type Capability,
  deviceTypes,
  type DeviceType,
  KVM_CREATE_DEVICE_TEST,
  type VcpuFeature,
} from '../../uapi.js'
import type { Gic, HostFacts } from './rules.js'

/** The `KVM_CREATE_DEVICE` type of each interrupt controller. */
const devices: Readonly<Record<Gic, DeviceType>> = {
  'gic-v2': 'KVM_DEV_TYPE_ARM_VGIC_V2',
  'gic-v3': 'KVM_DEV_TYPE_ARM_VGIC_V3',
}

/** Returns what a report says; it may say that something is unknown. */
export function factsOfReport(report: Report): HostFacts {
  return {
    feature: (name) => featureSupport(report, name),
    gic: (version) => deviceSupport(report, devices[version]),
    counterFrequency: guestRead(report, CNTFRQ_EL0),
    ...(untriedFields(report).length > 0 && { isUntried: untriedValues(report) }),
    hasOtherCpus: (report.cpus?.kinds.length ?? 1) > 1,
    hasMte: hasMte(report),
  }
}

/** Capabilities that announce vCPU features. */
const announcing: Readonly<Partial<Record<VcpuFeature, Capability>>> = {
  'pmu-v3': 'KVM_CAP_ARM_PMU_V3',
  sve: 'KVM_CAP_ARM_SVE',
  'ptrauth-address': 'KVM_CAP_ARM_PTRAUTH_ADDRESS',
  'ptrauth-generic': 'KVM_CAP_ARM_PTRAUTH_GENERIC',
}

/**
 * Returns what a host's KVM answers. For the simulation of a report that leaves something unknown, as that of a fingerprint, call
 * {@link factsOfReport}: KVM has no such answer.
 *
 * Its functions throw a KvmError for an accident on this machine, such as `ENOMEM`.
 */
export function factsOfKvm(kvm: Kvm): HostFacts {
  checkKvm(kvm)
  return {
    hasMte: kvm.checkExtension('KVM_CAP_ARM_MTE') > 0,
    feature(name) {
      const capability = announcing[name]
      if (capability === undefined) return 'unknown'
      return kvm.checkExtension(capability) > 0 ? 'yes' : 'no'
    },
    gic(version) {
      const vm = kvm.fd.createVm(0n)
      if (typeof vm === 'number') {
        refuseAccident(vm, { syscall: 'KVM_CREATE_VM' })
        return 'unknown'
      }
      try {
        const makes = (type: DeviceType): boolean => {
          const outcome = vm.createDevice(deviceTypes[type], KVM_CREATE_DEVICE_TEST)
          if (typeof outcome === 'number') refuseAccident(outcome, { syscall: 'KVM_CREATE_DEVICE' })
          return outcome === 0
        }
        if (makes(devices[version])) return 'yes'
        // A host that makes no device at all is one of whose devices nothing is known.
        return (Object.keys(deviceTypes) as DeviceType[]).some(makes) ? 'no' : 'unknown'
      } finally {
        vm.close()
      }
    },
  }
}
