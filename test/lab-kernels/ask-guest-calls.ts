/** Runs inside a real kernel: lets guests make every call and prints the answers. */
import { kernelBackend } from '../../lib/kernel/index.js'
import { askGuestCalls } from './guest-calls.js'

process.stdout.write(JSON.stringify(askGuestCalls(kernelBackend)))
