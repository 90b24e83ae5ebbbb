/**
 * Takes the census of every election under every version of PSCI on each kernel, and compares it with the host recorded from
 * it. Arguments: the kernels, if not all.
 */
import { bootWithTests, kernels } from './lab-hosts.js'

const HOUR = 3600

const wanted = process.argv.slice(2)

for (const kernel of wanted.length > 0 ? wanted : kernels) {
  // What a guest is answered does not hang on the CPU.
  await using lab = await bootWithTests(kernel, 'neoverse-n1')
  const host = `linux-${kernel}-neoverse-n1`
  const { status, stdout, stderr, milliseconds } = await lab.run(
    ['node', 'dist/test/real/ask-census.js', host],
    { timeout: HOUR },
  )
  console.log(`${host}, ${(milliseconds / 1000).toFixed(0)} s: ${String(stdout)}${String(stderr)}`)
  if (status !== 0) process.exitCode = 1
}
