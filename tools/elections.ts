/**
 * Takes the census of every election under every PSCI version on each kernel, and compares it with the host recorded from it and
 * with the gate's prediction. Arguments: the kernels, if not all; with --few, only the elections of everything and of nothing.
 */
import { kernels, onRecordedHosts } from '../test/lab-kernels/lab-hosts.js'

const HOUR = 3600

const isFew = process.argv.includes('--few')
const wanted = process.argv.slice(2).filter((argument) => argument !== '--few')

// A guest's results do not depend on the CPU.
const hosts = (wanted.length > 0 ? wanted : kernels).map((kernel) => `linux-${kernel}-neoverse-n1`)
await onRecordedHosts(hosts, async (lab, { name }) => {
  const { status, stdout, stderr, milliseconds } = await lab.run(
    ['node', 'dist/test/lab-kernels/ask-census.js', name, ...(isFew ? ['few'] : [])],
    { timeout: HOUR },
  )
  console.log(`${name}, ${(milliseconds / 1000).toFixed(0)} s: ${String(stdout)}${String(stderr)}`)
  if (status !== 0) process.exitCode = 1
})
