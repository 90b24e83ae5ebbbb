import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, it } from 'vitest'
import { cachePath, publish, withCacheLock } from '../../lib/lab/cache.js'
import { packageRoot } from '../../lib/package-root.js'

describe("the lab's cache", () => {
  const outside = process.env['XDG_CACHE_HOME']
  let directory: string
  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), 'kvm-arm64-test-'))
    process.env['XDG_CACHE_HOME'] = directory
  })
  afterAll(async () => {
    if (outside === undefined) delete process.env['XDG_CACHE_HOME']
    else process.env['XDG_CACHE_HOME'] = outside
    await rm(directory, { recursive: true })
  })

  it('shows a thing only when it is whole, and makes it once', async () => {
    let made = 0
    const make = () =>
      withCacheLock(() =>
        publish('thing', async (temporary) => {
          made++
          await mkdir(temporary)
          await writeFile(join(temporary, 'part'), 'whole')
          assert.equal(existsSync(cachePath('thing')), false)
        }),
      )
    await Promise.all([make(), make(), make()])
    assert.equal(made, 1)
    assert.equal(await readFile(cachePath('thing', 'part'), 'utf8'), 'whole')
  })

  it('names itself when the disk is full, and leaves nothing half made', async () => {
    const failing = withCacheLock(() =>
      publish('too-big', async (temporary) => {
        await mkdir(temporary)
        await symlink('/dev/full', join(temporary, 'file'))
        await writeFile(join(temporary, 'file'), 'more than there is room for')
      }),
    )
    await assert.rejects(failing, (error: Error & { code?: string }) => {
      assert.equal(error.code, 'ERR_LAB_DISK_FULL')
      assert.match(error.message, new RegExp(`disk.*full.*${directory}`))
      return true
    })
    assert.deepEqual(await readdir(cachePath()), ['thing'])
  })

  it('names itself and XDG_CACHE_HOME when it cannot be written', async () => {
    const file = join(directory, 'file')
    await writeFile(file, '')
    process.env['XDG_CACHE_HOME'] = file
    try {
      await assert.rejects(
        withCacheLock(async () => {}),
        {
          code: 'ERR_LAB_CACHE',
          message: `the lab's cache cannot be written (${file}/kvm-arm64/lab: ENOTDIR); point XDG_CACHE_HOME to a directory that can be`,
        },
      )
    } finally {
      process.env['XDG_CACHE_HOME'] = directory
    }
  })

  it('is not blamed for what lies elsewhere', async () => {
    const work = withCacheLock(() => readFile('/none/of/the/cache'))
    await assert.rejects(work, { code: 'ENOENT' })
  })

  it('is free again when whoever worked on it was killed, and what was half made is gone', async () => {
    const module = new URL('dist/lib/lab/cache.js', packageRoot).href
    const script = `
      import { mkdirSync } from 'node:fs'
      const { publish, withCacheLock } = await import(${JSON.stringify(module)})
      await withCacheLock(() => publish('abandoned', async (temporary) => {
        mkdirSync(temporary)
        console.log('making')
        await new Promise((resolve) => setTimeout(resolve, 60_000))
      }))`
    const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    await once(child.stdout, 'data')
    let free = false
    const waiting = withCacheLock(async () => {
      free = true
      return await readdir(cachePath())
    })
    await new Promise((resolve) => setTimeout(resolve, 100))
    assert.equal(free, false)
    child.kill('SIGKILL')
    assert.deepEqual(await waiting, ['thing'])
  })

  it('is not waited for any longer once interrupted', async () => {
    const abort = new AbortController()
    await withCacheLock(async () => {
      const waiting = withCacheLock(async () => {}, abort.signal)
      setTimeout(() => abort.abort(), 50)
      await assert.rejects(waiting, { code: 'ERR_LAB_CLOSED' })
    })
  })
})
