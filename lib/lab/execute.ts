import { spawn } from 'node:child_process'
import { LabError } from './errors.js'

export interface Execution {
  status: number
  stdout: string
  stderr: string
}

/**
 * Runs a tool of this machine to its end and returns what it said.
 *
 * @throws LabError `ERR_LAB_TOOL` when it is not installed, `ERR_LAB_CLOSED` when aborted
 * @throws Error with code `ENOSPC` when it failed for want of space
 */
export function execute(command: string, args: string[], signal?: AbortSignal): Promise<Execution> {
  return new Promise((resolve, reject) => {
    const output = { stdout: '', stderr: '' }
    // Its own process group: Ctrl-C reaches us alone, and we end it in order.
    const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], detached: true })
    const stop = () => {
      if (child.pid !== undefined && child.exitCode === null) process.kill(-child.pid, 'SIGTERM')
    }
    signal?.addEventListener('abort', stop)
    if (signal?.aborted) stop()
    for (const name of ['stdout', 'stderr'] as const) {
      child[name].setEncoding('utf8').on('data', (text: string) => (output[name] += text))
    }
    child.on('error', (error: NodeJS.ErrnoException) => {
      signal?.removeEventListener('abort', stop)
      reject(
        error.code === 'ENOENT'
          ? new LabError('ERR_LAB_TOOL', `${command} is not installed; run: kvm-arm64 lab setup`, {
              cause: error,
            })
          : error,
      )
    })
    child.on('close', (status, killed) => {
      signal?.removeEventListener('abort', stop)
      if (signal?.aborted) reject(new LabError('ERR_LAB_CLOSED', `${command} was interrupted`))
      else if (status !== 0 && /No space left on device|ENOSPC|enough free space/.test(output.stderr)) {
        reject(Object.assign(new Error(`${command}: ${lastLine(output.stderr)}`), { code: 'ENOSPC' }))
      } else resolve({ status: status ?? -1, ...output, ...(killed && { stderr: `killed by ${killed}` }) })
    })
  })
}

/** Like {@link execute}, and a status other than 0 is a LabError `ERR_LAB_TOOL`. */
export async function executeOrFail(command: string, args: string[], signal?: AbortSignal): Promise<string> {
  const { status, stdout, stderr } = await execute(command, args, signal)
  if (status !== 0) throw new LabError('ERR_LAB_TOOL', `${command} failed (${status}): ${lastLine(stderr)}`)
  return stdout
}

export function lastLine(text: string): string {
  return text.trimEnd().split('\n').at(-1) ?? ''
}
