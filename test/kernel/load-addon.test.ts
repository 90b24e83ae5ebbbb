import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { afterEach, beforeEach, describe, it } from 'vitest'
import { loadAddon } from '../../lib/kernel/load-addon.js'
import { packageRoot } from '../../lib/package-root.js'

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

  // Until Node 22.13 the option was called experimental.
  const permission = process.allowedNodeEnvironmentFlags.has('--permission')
    ? '--permission'
    : '--experimental-permission'

  for (const options of [[permission, '--allow-fs-read=*'], ['--no-addons']]) {
    it(`names the option that is missing, or too many, under ${options[0]}`, () => {
      put('build', 'Release', 'kvm-arm64.node')
      const arm64 = 'data:text/javascript,Object.defineProperty(process,"arch",{value:"arm64"})'
      const script = `
        import { openKvm } from ${JSON.stringify(new URL('dist/bundle/index.js', packageRoot).href)}
        try { openKvm() } catch ({ code, message }) { console.log(code, message) }`
      const { stdout, stderr } = spawnSync(
        process.execPath,
        [...options, '--import', arm64, '--input-type=module', '-e', script],
        { encoding: 'utf8', env: { ...process.env, KVM_ARM64_PREBUILD: folder } },
      )
      assert.match(
        stdout,
        /^ERR_KVM_ADDON_FORBIDDEN .*kvm-arm64\.node: under --permission add --allow-addons, and leave out --no-addons;/,
        stderr,
      )
    })
  }

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
