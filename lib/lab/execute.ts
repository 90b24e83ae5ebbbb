import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, statfsSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { cacheDirectory } from './cache.js'
import { LabError } from './errors.js'

interface Execution {
  status: number
  stdout: string
  stderr: string
}

/**
 * Runs a tool of this machine to its end and returns its output.
 *
 * @throws LabError `ERR_LAB_TOOL` if it is not installed, `ERR_LAB_CLOSED` if aborted
 * @throws Error with code `ENOSPC` if it failed because the cache's disk is full
 */
export async function execute(command: string, args: string[], signal?: AbortSignal): Promise<Execution> {
  const output = { stdout: '', stderr: '' }
  let diskFull = false
  // A process group of its own: Ctrl-C then reaches only this process, which ends the tool in order.
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], detached: true })
  const stop = () => {
    if (child.pid !== undefined && child.exitCode === null && child.signalCode === null) {
      process.kill(-child.pid, 'SIGTERM')
    }
  }
  // apt does not return if the disk fills up during a download.
  const watch = setInterval(() => {
    diskFull ||= cacheSpace() < leastSpace
    if (diskFull) stop()
  }, 250)
  signal?.addEventListener('abort', stop)
  if (signal?.aborted) stop()
  for (const name of ['stdout', 'stderr'] as const) {
    child[name].setEncoding('utf8').on('data', (text: string) => (output[name] += text))
  }
  try {
    const [status, killer] = (await once(child, 'close')) as [number | null, string | null]
    if (signal?.aborted) throw new LabError('ERR_LAB_CLOSED', `${command} was interrupted`)
    const failed = status !== 0
    if (failed && (diskFull || /No space left on device|ENOSPC|enough free space/.test(output.stderr))) {
      throw Object.assign(new Error(`${command}: no space left`), { code: 'ENOSPC' })
    }
    return { status: status ?? -1, ...output, ...(killer && { stderr: `killed by ${killer}` }) }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
    const message = `${command} is not installed; run: kvm-arm64 lab setup`
    throw new LabError('ERR_LAB_TOOL', message, { cause: error })
  } finally {
    clearInterval(watch)
    signal?.removeEventListener('abort', stop)
  }
}

const leastSpace = 8 * 1024 * 1024

/** Returns the bytes available to this process on the disk that holds the cache. */
function cacheSpace(): number {
  try {
    const { bavail, bfree, bsize } = statfsSync(cacheDirectory())
    return (process.getuid?.() === 0 ? bfree : bavail) * bsize
  } catch {
    return Infinity
  }
}

/** Returns whether a program is in one of PATH's directories. */
export function isInstalled(program: string): boolean {
  const directories = (process.env['PATH'] ?? '').split(delimiter)
  return directories.some((directory) => existsSync(join(directory, program)))
}

/** Like {@link execute}, but throws LabError `ERR_LAB_TOOL` for a status other than 0. */
export async function executeOrFail(command: string, args: string[], signal?: AbortSignal): Promise<string> {
  const { status, stdout, stderr } = await execute(command, args, signal)
  if (status !== 0) throw new LabError('ERR_LAB_TOOL', `${command} failed (${status}): ${lastLine(stderr)}`)
  return stdout
}

export function lastLine(text: string): string {
  return text.trimEnd().split('\n').at(-1) ?? ''
}
