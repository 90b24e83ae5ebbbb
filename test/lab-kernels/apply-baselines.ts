/** Runs inside a real kernel: does the work it is given on standard input and prints the answers. */
import { readFileSync } from 'node:fs'
import { kernelBackend } from '../../lib/kernel/index.js'
import { type BaselineWork, doBaselineWork } from './baselines.js'

const work = JSON.parse(readFileSync(0, 'utf8')) as BaselineWork
process.stdout.write(JSON.stringify(doBaselineWork(kernelBackend, work)))
