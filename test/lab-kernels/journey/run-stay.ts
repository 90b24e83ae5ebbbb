/** Run inside a lab: reads an errand as JSON from standard input, and writes what came of it to standard output. */
import { readFileSync } from 'node:fs'
import { kernelBackend } from '../../../lib/kernel/index.js'
import { openKvm } from '../../../lib/kvm/index.js'
import { type Errand, stay } from './stay.js'

using kvm = openKvm(kernelBackend)
process.stdout.write(JSON.stringify(stay(kvm, JSON.parse(readFileSync(0, 'utf8')) as Errand)))
