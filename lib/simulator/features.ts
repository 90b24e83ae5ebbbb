import { featureWord, type VcpuFeature, vcpuFeatures } from '../uapi.js'

/** The features of a word of `struct kvm_vcpu_init.features`, the inverse of `featureWord`. */
export function featureNames(word: number): VcpuFeature[] {
  return (Object.keys(vcpuFeatures) as VcpuFeature[]).filter((name) => (word & featureWord([name])) !== 0)
}
