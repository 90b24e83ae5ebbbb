/**
 * QMP's reply to `query-cpu-model-expansion` of the model `host` (`target/arm/arm-qmp-cmds.c` of QEMU): which vCPU features and SVE
 * vector lengths QEMU offers on a host.
 */
import * as v from 'valibot'
import { checkShape } from '../documents/document.js'
import type { VcpuFeature } from '../uapi.js'
import type { Vouched } from './vouched-features.js'

const replyShape = v.object({
  return: v.object({ model: v.object({ props: v.record(v.string(), v.unknown()) }) }),
})

/** Each property with the features it stands for. */
const properties: Readonly<Record<string, readonly VcpuFeature[]>> = {
  pmu: ['pmu-v3'],
  sve: ['sve'],
  pauth: ['ptrauth-address', 'ptrauth-generic'],
}

/**
 * Returns the features that a reply vouches for. Properties that are off or absent vouch for nothing: QEMU leaves out what its
 * machine was started without.
 * @throws FormatError for anything but such a reply
 */
export function featuresOfQmp(data: unknown, source: string): Vouched {
  const { props } = checkShape(replyShape, data, source).return.model
  const lengths = Object.entries(props)
    .filter(([name, value]) => /^sve\d+$/.test(name) && value === true)
    .map(([name]) => Number(name.slice('sve'.length)))
  const features = Object.entries(properties).flatMap(([name, all]) => (props[name] === true ? all : []))
  return {
    features,
    ...(features.includes('sve') && lengths.length > 0 && { longestVector: Math.max(...lengths) }),
  }
}
