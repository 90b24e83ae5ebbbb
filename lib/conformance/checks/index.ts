import type { CheckGroup } from '../check.js'
import { bitmapRegisters } from './bitmap-registers.js'
import { coalescedMmio } from './coalesced-mmio.js'
import { counterOffset } from './counter-offset.js'
import { dirtyLog } from './dirty-log.js'
import { dirtyRing } from './dirty-ring.js'
import { events } from './events.js'
import { guestDebug } from './guest-debug.js'
import { hypercalls } from './hypercalls.js'
import { idRegisters } from './id-registers.js'
import { interruptLines } from './interrupt-lines.js'
import { memoryTags } from './memory-tags.js'
import { messageInterrupts } from './message-interrupts.js'
import { psciVersion } from './psci-version.js'
import { psci } from './psci.js'
import { registerList } from './register-list.js'
import { smcccFilter } from './smccc-filter.js'
import { statisticChecks } from './statistics.js'
import { vcpuInit } from './vcpu-init.js'
import { workaroundRegisters } from './workarounds.js'

/** All checks, in the order they run in. */
export const checkGroups: readonly CheckGroup[] = [
  bitmapRegisters,
  psciVersion,
  workaroundRegisters,
  hypercalls,
  smcccFilter,
  psci,
  vcpuInit,
  registerList,
  idRegisters,
  interruptLines,
  messageInterrupts,
  events,
  coalescedMmio,
  dirtyLog,
  dirtyRing,
  counterOffset,
  guestDebug,
  statisticChecks,
  memoryTags,
]
