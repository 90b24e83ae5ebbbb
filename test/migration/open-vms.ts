import type { Backend } from '../../lib/backend.js'
import { recordingBackend } from '../../lib/trace/index.js'

/** The backend, and which of the VMs made on it are open, by the order they were made in. */
export function watchVms(backend: Backend): { backend: Backend; open: ReadonlySet<number> } {
  const open = new Set<number>()
  const watched = recordingBackend(backend, ({ call, outcome }) => {
    if (call.op === 'create_vm' && outcome.errno === undefined) open.add(call.vm)
    if (call.op === 'close' && call.vm !== undefined) open.delete(call.vm)
  })
  return { backend: watched, open }
}
