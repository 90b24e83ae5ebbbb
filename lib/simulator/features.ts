import { type VcpuFeature, vcpuFeatures } from '../uapi.js'

/** The bit of a feature in `struct kvm_vcpu_init.features[0]`. */
export function featureBit(feature: VcpuFeature): number {
  return 1 << vcpuFeatures[feature]
}

export function featureNames(features: number): VcpuFeature[] {
  return (Object.keys(vcpuFeatures) as VcpuFeature[]).filter((name) => (features & featureBit(name)) !== 0)
}

export function featureBits(features: readonly VcpuFeature[]): number {
  return features.reduce((bits, feature) => bits | featureBit(feature), 0)
}
