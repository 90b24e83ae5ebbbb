import { createHash, randomBytes } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdir, readdir, rename, rm } from 'node:fs/promises'
import { connect, createServer } from 'node:net'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { LabError } from './errors.js'

/** The directory for kernels, the root image and apt's indexes: `$XDG_CACHE_HOME/kvm-arm64/lab` or under `~/.cache`. */
export function cacheDirectory(): string {
  return join(process.env['XDG_CACHE_HOME'] || join(homedir(), '.cache'), 'kvm-arm64', 'lab')
}

/** A path inside the cache. */
export function cachePath(...parts: string[]): string {
  return join(cacheDirectory(), ...parts)
}

/**
 * Makes `cachePath(name)` unless it exists, and never leaves a partial one visible: `make` fills the temporary directory or file
 * whose path it receives, which is then renamed. Call it under {@link withCacheLock}.
 *
 * @throws LabError `ERR_LAB_DISK_FULL`, `ERR_LAB_CACHE`
 */
export async function publish(name: string, make: (temporary: string) => Promise<void>): Promise<string> {
  const path = cachePath(name)
  if (existsSync(path)) return path
  const temporary = cachePath(`${temporaryPrefix}${randomBytes(6).toString('hex')}`)
  try {
    await mkdir(join(path, '..'), { recursive: true })
    await make(temporary)
    await rename(temporary, path)
  } catch (error) {
    await rm(temporary, { recursive: true, force: true })
    throw explainDisk(error)
  }
  return path
}

const temporaryPrefix = '.making-'

/**
 * Runs `work` while no other process works on this cache. The lock is a listening socket in the abstract namespace: the kernel
 * drops it however its holder ends, so no stale lock and no file can remain.
 */
export async function withCacheLock<T>(work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
  const directory = cacheDirectory()
  const name = `\0kvm-arm64-lab-${createHash('sha256').update(directory).digest('hex').slice(0, 32)}`
  const waiters = new Set<{ destroy(): unknown }>()
  const server = createServer((waiter) => {
    waiters.add(waiter)
    waiter.on('error', () => {}).on('close', () => waiters.delete(waiter))
  })
  for (;;) {
    if (signal?.aborted)
      throw new LabError('ERR_LAB_CLOSED', 'interrupted while waiting for another lab to fill the cache')
    const error = await new Promise<NodeJS.ErrnoException | undefined>((resolve) => {
      server.once('error', resolve)
      server.listen(name, () => {
        server.removeListener('error', resolve)
        resolve(undefined)
      })
    })
    if (!error) break
    if (error.code !== 'EADDRINUSE') throw error
    await new Promise<void>((resolve) => {
      const waiter = connect(name)
      const stop = () => waiter.destroy()
      signal?.addEventListener('abort', stop)
      waiter
        .on('error', () => {})
        .on('close', () => {
          signal?.removeEventListener('abort', stop)
          resolve()
        })
    })
  }
  try {
    await mkdir(directory, { recursive: true })
    // The holder of the lock is the only process making something: anything half made has lost its maker.
    for (const file of await readdir(directory)) {
      if (file.startsWith(temporaryPrefix)) await rm(join(directory, file), { recursive: true, force: true })
    }
    return await work()
  } catch (error) {
    throw explainDisk(error)
  } finally {
    server.close()
    for (const waiter of waiters) waiter.destroy()
  }
}

function explainDisk(error: unknown): unknown {
  const { code, path } = error as NodeJS.ErrnoException
  const directory = cacheDirectory()
  if (code === 'ENOSPC' || code === 'EDQUOT') {
    return new LabError(
      'ERR_LAB_DISK_FULL',
      `the disk that holds the lab's cache is full (${directory}); free some space or point XDG_CACHE_HOME elsewhere`,
      { cause: error },
    )
  }
  // For a path outside the cache, the remedy would name the wrong directory.
  if (code === undefined || !unwritable.has(code) || !path?.startsWith(directory)) return error
  return new LabError(
    'ERR_LAB_CACHE',
    `the lab's cache cannot be written (${directory}: ${code}); point XDG_CACHE_HOME to a directory that can be`,
    { cause: error },
  )
}

const unwritable = new Set(['EACCES', 'EROFS', 'EPERM', 'ENOTDIR', 'ENOENT'])
