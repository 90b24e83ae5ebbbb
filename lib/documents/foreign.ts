/**
 * Files of other tools that people give where a document of this package is due. They are recognised by their outer shape alone, and
 * named in the error, with what reads them.
 */

type Properties = Readonly<Record<string, unknown>>

function isObject(data: unknown): data is Properties {
  return typeof data === 'object' && data !== null && !Array.isArray(data)
}

function hasAny(data: Properties, ...keys: string[]): boolean {
  return keys.some((key) => Object.hasOwn(data, key))
}

const FINGERPRINT = 'a fingerprint of cpu-template-helper'
const TEMPLATE = 'a CPU template of Firecracker'
const X86 = 'for x86_64, whose registers no arm64 host has'

/** Returns what JSON data of another tool is, and what reads it; undefined if it is not known. */
export function foreignData(data: unknown): string | undefined {
  if (!isObject(data)) return undefined
  if (hasAny(data, 'guest_cpu_config')) {
    const config = data['guest_cpu_config']
    return isObject(config) && hasAny(config, 'cpuid_modifiers', 'msr_modifiers')
      ? `${FINGERPRINT} ${X86}`
      : `${FINGERPRINT}; kvm-arm64 import makes a report of it`
  }
  if (hasAny(data, 'cpuid_modifiers', 'msr_modifiers')) return `${TEMPLATE} ${X86}`
  if (hasAny(data, 'kvm_capabilities', 'vcpu_features', 'reg_modifiers')) {
    return `${TEMPLATE}; kvm-arm64 import makes a baseline of it, and check --baseline takes it as it is`
  }
  if (isObject(data['snapshots']) && hasAny(data, 'id', 'snapshot_data')) {
    return (
      'the state of a cloud-hypervisor snapshot, which only cloud-hypervisor reads; kvm-arm64 capture --vmm cloud-hypervisor ' +
      'writes the state of such a VM as its host makes it'
    )
  }
  return qmpReply(data)
}

function qmpReply(data: Properties): string | undefined {
  if (hasAny(data, 'QMP')) return 'the greeting of QMP, which says nothing of a CPU'
  const reply = data['return']
  if (isObject(reply) && isObject(reply['model'])) {
    return (
      "QMP's reply to query-cpu-model-expansion: it says which vCPU features QEMU offers on a host, and no register; " +
      'kvm-arm64 import FINGERPRINT --with FILE takes the features from it'
    )
  }
  if (Array.isArray(reply) && reply.every((entry) => isObject(entry) && hasAny(entry, 'emulated'))) {
    return "QMP's reply to query-gic-capabilities: it says which interrupt controllers QEMU can make on a host, and no register"
  }
  return hasAny(data, 'return') ? 'a reply of QMP' : undefined
}

const starts: readonly (readonly [bytes: readonly number[], what: string])[] = [
  [
    // The magic numbers of src/vmm/src/snapshot/mod.rs, little-endian.
    [0, 0, 0xaa, 0xaa, 0x84, 0x19, 0x10, 0x07],
    'the state file of a Firecracker snapshot; Firecracker’s snapshot-editor shows it (info-vmstate vcpu-states) and removes registers from it, and check --drop-registers predicts what comes of that',
  ],
  [[0, 0, 0x64, 0x86, 0x84, 0x19, 0x10, 0x07], 'the state file of a Firecracker snapshot of an x86_64 VM'],
  [
    // QEVM
    [0x51, 0x45, 0x56, 0x4d],
    'a migration stream of QEMU, which only QEMU reads; kvm-arm64 capture --vmm qemu writes the state of such a VM as its host makes it',
  ],
]

/** Returns what a file that is not JSON is, by its beginning; undefined if it is not known. */
export function foreignBytes(bytes: Uint8Array): string | undefined {
  const found = starts.find(([start]) => start.every((byte, index) => bytes[index] === byte))
  if (found !== undefined) return found[1]
  const text = Buffer.from(bytes.subarray(0, 256)).toString('latin1').trimStart()
  if (/^vcpu \d+:/.test(text)) {
    return (
      'what Firecracker’s snapshot-editor prints (info-vmstate vcpu-states), whose values leave out leading zeros and are ambiguous; ' +
      'kvm-arm64 capture --vmm firecracker writes the state of such a VM as its host makes it'
    )
  }
  const element = /^(?:<\?xml[^>]*>\s*)?<(domain|cpu|capabilities|domainCapabilities|hostCPU)\b/.exec(
    text,
  )?.[1]
  return element === undefined ? undefined : `XML of libvirt (<${element}>), which holds no registers`
}
