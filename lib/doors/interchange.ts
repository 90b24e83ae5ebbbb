/** `kvm-arm64/interchange`: files of other tools: Firecracker, QEMU, Node Feature Discovery, KubeVirt, Prometheus. */
export { baselineConfiguration, baselineOfTemplate, TemplateError } from '../interchange/baseline.js'
export {
  type ConfiguredRegister,
  guestConfiguration,
  type GuestConfiguration,
} from '../interchange/configuration.js'
export type { Emitted } from '../interchange/emitted.js'
export { type Fingerprint, parseFingerprint } from '../interchange/fingerprint.js'
export {
  type LikeOptions,
  reportFromFingerprint,
  UnlikeHostError,
} from '../interchange/fingerprint-report.js'
export {
  type CpuTemplate,
  firecrackerTemplate,
  formatCpuTemplate,
  parseCpuTemplate,
  type ReadTemplate,
} from '../interchange/firecracker.js'
export { kubevirtSelectors } from '../interchange/kubevirt.js'
export { nfdFeatures } from '../interchange/nfd.js'
export { nfdObjects } from '../interchange/nfd-objects.js'
export { prometheusMetrics } from '../interchange/prometheus.js'
export { qemuCpuOption, type QemuVersion, qemuVersions } from '../interchange/qemu.js'
export { type Vouched, VouchError } from '../interchange/vouched-features.js'
