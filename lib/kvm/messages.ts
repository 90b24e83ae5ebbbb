/** Message-signalled interrupts, and routes of interrupts to them. */
import { checkOptions, checkUint32, checkUint64 } from '../arguments.js'
import { type GsiRoute, KVM_MSI_VALID_DEVID, routeTypes } from '../uapi.js'

/** A message-signalled interrupt. */
export interface Message {
  /** What the device writes to: GITS_TRANSLATER of the translation service, 64 bits. */
  address: bigint
  /** The event, 32 bits. */
  data: number
  /** The device that writes, 32 bits; a translation service needs it. */
  deviceId?: number
}

/** A route of an interrupt to a pin of the GIC. */
export interface PinRoute {
  /** Number of the interrupt. */
  gsi: number
  /** The GIC's shared interrupt, counted from 0: pin n is interrupt 32 + n. */
  pin: number
}

/** A route of an interrupt to a message. */
export interface MessageRoute extends Message {
  /** Number of the interrupt. */
  gsi: number
}

/** @throws TypeError, RangeError */
export function checkMessage({ address, data, deviceId }: Message, name: string): void {
  checkUint64(address, `${name}.address`)
  checkUint32(data, `${name}.data`)
  if (deviceId !== undefined) checkUint32(deviceId, `${name}.deviceId`)
}

/** @throws TypeError, RangeError */
export function toGsiRoute(route: PinRoute | MessageRoute, index: number): GsiRoute {
  const name = `routes[${index}]`
  if (typeof route === 'object' && route !== null && 'pin' in route) {
    checkOptions(route, name, ['gsi', 'pin'])
    checkUint32(route.gsi, `${name}.gsi`)
    checkUint32(route.pin, `${name}.pin`)
    return { gsi: route.gsi, type: routeTypes.irqchip, flags: 0, words: [0, route.pin] }
  }
  checkOptions(route, name, ['gsi', 'address', 'data', 'deviceId'])
  const { gsi, address, data, deviceId } = route
  checkUint32(gsi, `${name}.gsi`)
  checkMessage(route, name)
  const halves = [Number(BigInt.asUintN(32, address)), Number(address >> 32n)]
  const flags = deviceId === undefined ? 0 : KVM_MSI_VALID_DEVID
  return { gsi, type: routeTypes.msi, flags, words: [...halves, data, deviceId ?? 0] }
}
