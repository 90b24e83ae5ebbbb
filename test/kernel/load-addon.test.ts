import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { afterEach, beforeEach, describe, it } from 'vitest'
import { loadAddon } from '../../lib/kernel/load-addon.js'

describe('Loading the addon', () => {
  let folder: string
  let root: URL
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'kvm-arm64-test-'))
    root = pathToFileURL(`${folder}/`)
  })
  afterEach(() => rmSync(folder, { recursive: true }))

  const linux = { platform: 'linux', arch: process.arch, nodeVersion: '20.19.0' }

  function put(...path: string[]): void {
    mkdirSync(join(folder, ...path.slice(0, -1)), { recursive: true })
    writeFileSync(join(folder, ...path), 'this is no shared object')
  }

  it('is refused anywhere but on Linux, whatever lies there', () => {
    put('build', 'Release', 'kvm-arm64.node')
    for (const platform of ['darwin', 'win32', 'freebsd']) {
      assert.throws(() => loadAddon(root, { ...linux, platform }), {
        name: 'AddonError',
        code: 'ERR_KVM_UNSUPPORTED_PLATFORM',
        message: new RegExp(`this is ${platform}-${process.arch}: use the simulator`),
      })
    }
  })

  it('says that there is none', () => {
    assert.throws(() => loadAddon(root, linux), {
      code: 'ERR_KVM_ADDON_MISSING',
      message: new RegExp(
        `^there is no native addon for linux-${process.arch} \\((glibc [\\d.]+|musl), Node\\.js 20\\.19\\.0\\) in .*no prebuilt ones.*npm run build:addon`,
      ),
    })
  })

  it('says which ones there are when none fits', () => {
    put('prebuilds', 'linux-mips', 'kvm-arm64.node')
    assert.throws(() => loadAddon(root, linux), {
      code: 'ERR_KVM_ADDON_MISSING',
      message: /it has one for linux-mips\. /,
    })
  })

  for (const path of [
    ['build', 'Release', 'kvm-arm64.node'],
    ['prebuilds', `linux-${process.arch}`, 'kvm-arm64.node'],
  ]) {
    it(`says what the linker said of ${path[0]}/ when it does not load`, () => {
      put(...path)
      assert.throws(
        () => loadAddon(root, linux),
        (error: Error & { code?: string }) => {
          assert.equal(error.code, 'ERR_KVM_ADDON_MISSING')
          assert.ok(error.message.includes(`${join(...path)} is there but does not load`))
          assert.match(error.message, /file too short|invalid ELF header/)
          assert.ok(error.cause instanceof Error)
          return true
        },
      )
    })
  }
})
