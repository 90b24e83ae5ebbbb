/**
 * The long run: boots every recorded host, and makes the same generated calls on its kernel and on the host recorded from it.
 * Arguments: the number of calls on each host, the seed, and the hosts' names if not all.
 */
import { fuzzCommand, onRecordedHosts } from '../test/lab-kernels/lab-hosts.js'

const [operations = '70000', seed = '1', ...wanted] = process.argv.slice(2)

await onRecordedHosts(wanted, async (lab, { name }) => {
  const { status, stdout, stderr, milliseconds } = await lab.run(fuzzCommand(name, operations, seed))
  console.log(`${name}, ${(milliseconds / 1000).toFixed(0)} s: ${String(stdout)}${String(stderr)}`)
  if (status !== 0) process.exitCode = 1
})
