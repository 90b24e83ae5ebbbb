/** How a process of `stages.ts` ends. */
import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { packageRoot } from '../../lib/package-root.js'

export interface End {
  code: unknown
  signal: unknown
  stdout: string
  stderr: string
}

/** `wrapper` is a command that starts the command that follows it. */
export function endOf(stage: string, ...wrapper: string[]): Promise<End> {
  const file = fileURLToPath(new URL('dist/test/native/stages.js', packageRoot))
  return new Promise((resolve) => {
    execFile(
      'env',
      [...wrapper, process.execPath, file, stage],
      { timeout: 120_000, killSignal: 'SIGKILL' },
      (error, stdout, stderr) =>
        resolve({ code: error === null ? 0 : error.code, signal: error?.signal ?? null, stdout, stderr }),
    )
  })
}
