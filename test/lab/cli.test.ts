import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { describe, it } from 'vitest'
import { main } from '../cli/run.js'

function lab(
  args: string[],
  env: NodeJS.ProcessEnv = {},
): { status: number | null; stdout: string; stderr: string } {
  return spawnSync(process.execPath, [main, 'lab', ...args], {
    encoding: 'utf8',
    env: { ...process.env, ...env },
  })
}

describe('kvm-arm64 lab, where no machine is booted', () => {
  it('says how to get QEMU when it is missing', () => {
    const { status, stdout, stderr } = lab(['run', '--', 'true'], { PATH: '/nonexistent' })
    assert.equal(status, 125)
    assert.equal(stdout, '')
    assert.match(stderr, /qemu-system-aarch64 is not installed; run: kvm-arm64 lab setup/)
  })

  it('says which kernels there are when asked for one that cannot be had', () => {
    const { status, stdout, stderr } = lab(['run', '--kernel', '4.99', '--', 'true'])
    assert.equal(status, 125)
    assert.equal(stdout, '')
    assert.match(stderr, /no kernel 4\.99 is available; available: .*7\.2.*6\.12.*6\.1.*5\.10/)
  })

  it('names an image that is not there', () => {
    const { status, stderr } = lab(['run', '--image', '/nonexistent/Image', '--', 'true'])
    assert.equal(status, 125)
    assert.match(stderr, /no kernel image \/nonexistent\/Image/)
  })

  it('names the CPUs that QEMU offers when asked for one it lacks', () => {
    const { status, stderr } = lab(['run', '--cpu', 'abacus,sve=on', '--', 'true'])
    assert.equal(status, 125)
    assert.match(stderr, /QEMU [\d.]+ has no CPU abacus; it has a64fx, .*max, neoverse-n1/)
  })

  it('passes on what QEMU says about an option it does not know', () => {
    const { status, stderr } = lab(['run', '--cpu', 'neoverse-n1,abacus=on', '--', 'true'])
    assert.equal(status, 125)
    assert.match(stderr, /QEMU cannot run this machine: .*abacus/)
  })

  it('says which QEMUs there are when asked for one that cannot be had', () => {
    const { status, stderr } = lab(['run', '--qemu', '4.99', '--', 'true'])
    assert.equal(status, 125)
    assert.match(stderr, /no QEMU 4\.99 is available; available: .*11\.1\.\d/)
  })

  it('knows page sizes and interrupt controllers by name', () => {
    for (const [option, words] of [
      ['--pages', /Allowed choices are 4k, 16k/],
      ['--gic', /Allowed choices are 2, 3/],
    ] as const) {
      const { status, stderr } = lab(['run', option, '5', '--', 'true'])
      assert.equal(status, 2)
      assert.match(stderr, words)
    }
  })

  it('lists kernels as data, newest first, and silently in a pipe', () => {
    const { status, stdout, stderr } = lab(['kernels', '--json'])
    assert.equal(status, 0)
    assert.equal(stderr, '')
    const kernels = JSON.parse(stdout) as Record<string, unknown>[]
    for (const series of ['5.10', '6.1', '6.12', '6.18', '7.2']) {
      assert.ok(
        kernels.some((kernel) => kernel['series'] === series),
        series,
      )
    }
    for (const kernel of kernels) {
      const keys = ['cached', 'pages', 'release', 'series', 'suite', 'version']
      assert.deepEqual(Object.keys(kernel).toSorted(), keys)
    }
  })
})
