/**
 * The operations of a trace: one row for each ioctl, with its schema, how it is performed and how it is recorded. The trace's
 * reader, player and recorder know nothing else about an ioctl. A backend method that no row records fails to compile in record.ts.
 */
import { attributeOperations } from './attributes.js'
import type { Arguments } from './operation.js'
import { runOperations } from './run.js'
import { systemOperations } from './system.js'
import { vcpuOperations } from './vcpu.js'
import { vmOperations } from './vm.js'

/** By `op`, as the trace writes it. */
export const operations = {
  ...systemOperations,
  ...vmOperations,
  ...attributeOperations,
  ...vcpuOperations,
  ...runOperations,
}

type Operations = typeof operations
export type Op = keyof Operations
/** The calls of one op, without their outcome. */
export type CallOf<K extends Op> = { op: K } & Arguments<Operations[K]['args']>
/** An ioctl with its arguments. */
export type Call = { [K in Op]: CallOf<K> }[Op]
