/** Runs inside a real kernel: puts every question to its KVM and prints the answers. */
import { kernelBackend } from '../../lib/kernel/index.js'
import { ask } from './scenarios.js'

process.stdout.write(JSON.stringify(ask(kernelBackend)))
