/** Makes `lib/hosts/recorded/` again: boots and probes every lab host, and derives the seed's host from one. */
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { packageRoot } from '../lib/package-root.js'
import { parseReport } from '../lib/report/read.js'
import { formatDocument, writeFileAtomically } from '../lib/documents/write.js'
import { seedV6 } from '../test/hosts/seed-v6.js'
import { onRecordedHosts, runInside } from '../test/lab-kernels/lab-hosts.js'

const folder = fileURLToPath(new URL('lib/hosts/recorded/', packageRoot))

await onRecordedHosts(process.argv.slice(2), async (lab, { name }) => {
  const { stdout, milliseconds } = await runInside(lab, 'kvm-arm64', 'probe', '--backend', 'kernel', '--json')
  const report = parseReport(stdout.toString(), name)
  writeFileAtomically(join(folder, `${name}.json`), formatDocument(report))
  console.log(
    `${name}: ${report.host.release}, ${report.registers.length} registers, probed in ${milliseconds.toFixed(0)} ms`,
  )
  if (name === 'linux-6.1-neoverse-n1') {
    writeFileAtomically(join(folder, 'seed-v6.json'), formatDocument(seedV6(report)))
  }
})
