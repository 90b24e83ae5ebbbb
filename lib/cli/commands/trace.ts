import { Command } from 'commander'
import { fuzzCommand } from './trace/fuzz.js'
import { recordCommand } from './trace/record.js'
import { replayCommand } from './trace/replay.js'

/** `kvm-arm64 trace`: record KVM calls, replay them elsewhere, and generate new ones. */
export function traceCommand(): Command {
  const trace = new Command('trace').addHelpText(
    'after',
    `
Examples:
  kvm-arm64 trace record migrate.mjs -o migrate.ndjson
  kvm-arm64 trace replay migrate.ndjson --simulate linux-6.1-max
  kvm-arm64 trace fuzz --ops 100000`,
  )
  trace.addCommand(recordCommand())
  trace.addCommand(replayCommand())
  trace.addCommand(fuzzCommand())
  return trace
}
