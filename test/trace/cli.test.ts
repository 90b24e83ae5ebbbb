import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { describe, it } from 'vitest'
import { kvmArm64, onX64 } from '../cli/run.js'
import { HEAD, temporaryFile } from './files.js'

const HOST = 'linux-6.12-max'
const SCRIPT = `export default async (kvm) => {
  const vm = kvm.createVm()
  vm.createVcpu(0).registers.get('KVM_REG_ARM_STD_BMAP')
  vm.close()
}`

describe('kvm-arm64 trace', () => {
  it('records a script, replays it alike on the same host and otherwise on another', () => {
    using script = temporaryFile(SCRIPT, 'a.mjs')
    const trace = join(script.path, '..', 'a.ndjson')
    const recorded = kvmArm64(['trace', 'record', script.path, '--simulate', HOST, '-o', trace])
    assert.deepEqual(recorded, { status: 0, out: '', error: '' })
    assert.match(
      readFileSync(trace, 'utf8'),
      /"id":"0x6030000000160000","value":"0x1"}\n.*"close","vcpu":0}\n/s,
    )

    const same = kvmArm64(['trace', 'replay', trace, '--simulate', HOST])
    assert.equal(same.status, 0)
    assert.match(same.out, /^\d+ calls recorded on 6\.12\.\S+, 0 outcomes differ\n$/)

    const other = kvmArm64(['trace', 'replay', trace, '--simulate', 'linux-5.10-max'])
    assert.equal(other.status, 1)
    assert.match(
      other.out,
      /a\.ndjson:\d+: get_one_reg vcpu 0 KVM_REG_ARM_STD_BMAP \(0x6030000000160000\)\n {2}recorded: 0x1\n {2}replayed: ENOENT\n/,
    )

    const again = kvmArm64(['trace', 'record', trace, '--simulate', 'linux-5.10-max'])
    assert.match(again.out, /"id":"0x6030000000160000","errno":"ENOENT"}/)
  })

  it('writes to standard output where -o is -', () => {
    using script = temporaryFile(SCRIPT, 'a.mjs')
    const args = ['trace', 'record', script.path, '--simulate', HOST]
    const { status, out, error } = kvmArm64([...args, '-o', '-'])
    assert.deepEqual([status, error], [0, ''])
    assert.equal(out, kvmArm64(args).out)
    assert.match(out, /^{"trace".*\n{"op":"api_version"/)
  })

  it('shows what a terminal would obey escaped', () => {
    using trace = temporaryFile(HEAD.replace('6.12.0-test', String.raw`\u001b[31mX\u202e`))
    const { status, out } = kvmArm64(['trace', 'replay', trace.path, '--simulate', HOST], {
      env: { FORCE_COLOR: '1' },
    })
    assert.equal(status, 0)
    assert.equal(out, '0 calls recorded on \\x1b[31mX\\u202e, 0 outcomes differ\n')
  })

  it('keeps what was recorded until a script throws', () => {
    using script = temporaryFile(
      `export default (kvm) => { kvm.createVm(); throw new Error('enough') }`,
      'a.mjs',
    )
    const { status, out, error } = kvmArm64(['trace', 'record', script.path, '--simulate', HOST])
    assert.equal(status, 1)
    assert.match(out, /"create_vm"/)
    assert.match(error, /a\.mjs: enough\n$/)
  })

  for (const [how, body, status, problem] of [
    ['exits', 'process.exit(0)', 0, /^$/],
    [
      'leaves a rejection to nobody',
      `Promise.reject(new Error('lost')); await new Promise(setImmediate)`,
      1,
      /a\.mjs: lost\n$/,
    ],
    [
      'throws in a callback',
      `setTimeout(() => { throw new Error('late') }); await new Promise((r) => setTimeout(r, 1000))`,
      1,
      /a\.mjs: late\n$/,
    ],
    [
      'returns a promise that is never settled',
      'await new Promise(() => {})',
      1,
      /a\.mjs: the promise that it returned can never settle: nothing is left to wait for\n$/,
    ],
    [
      'is terminated',
      `process.kill(process.pid, 'SIGTERM'); await new Promise((r) => setTimeout(r, 60_000))`,
      null,
      /^$/,
    ],
    [
      'is interrupted',
      `process.kill(process.pid, 'SIGINT'); await new Promise((r) => setTimeout(r, 60_000))`,
      null,
      /^$/,
    ],
  ] as const) {
    it(`keeps what was recorded until a script ${how}`, () => {
      using script = temporaryFile(`export default async (kvm) => { kvm.createVm(); ${body} }`, 'a.mjs')
      const trace = join(dirname(script.path), 'a.ndjson')
      const outcome = kvmArm64(['trace', 'record', script.path, '--simulate', HOST, '-o', trace])
      assert.equal(outcome.status, status, outcome.error)
      assert.match(outcome.error, problem)
      assert.match(readFileSync(trace, 'utf8'), /"create_vm"/)
      assert.deepEqual(readdirSync(dirname(trace)).toSorted(), ['a.mjs', 'a.ndjson'])
    })
  }

  it('lets a script that listens to signals end as it likes', () => {
    using script = temporaryFile(
      `export default async (kvm) => {
        const heard = new Promise((resolve) => process.once('SIGTERM', resolve))
        const timer = setTimeout(() => {}, 60_000)
        process.kill(process.pid, 'SIGTERM')
        await heard
        clearTimeout(timer)
        kvm.createVm()
      }`,
      'a.mjs',
    )
    const { status, out } = kvmArm64(['trace', 'record', script.path, '--simulate', HOST])
    assert.equal(status, 0)
    assert.match(out, /"create_vm"/)
  })

  it('leaves a file as it was where there is no KVM to record', () => {
    using script = temporaryFile(SCRIPT, 'a.mjs')
    using kept = temporaryFile('precious', 'keep.ndjson')
    const { status } = kvmArm64(['trace', 'record', script.path, '-o', kept.path], { node: onX64 })
    assert.equal(status, 3)
    assert.equal(readFileSync(kept.path, 'utf8'), 'precious')
  })

  it('leaves a file as it was where the trace to be made again breaks off', () => {
    using trace = temporaryFile(`${HEAD}{"op":"api_version","value":12}\n{"op":"x"}\n`)
    using kept = temporaryFile('precious', 'keep.ndjson')
    const { status } = kvmArm64(['trace', 'record', trace.path, '--simulate', HOST, '-o', kept.path])
    assert.equal(status, 2)
    assert.equal(readFileSync(kept.path, 'utf8'), 'precious')
    assert.deepEqual(readdirSync(dirname(kept.path)), ['keep.ndjson'])
  })

  for (const [what, name, content] of [
    ['trace', 'a.ndjson', HEAD],
    ['script', 'a.mjs', SCRIPT],
  ] as const) {
    it(`does not write over the ${what} that it records`, () => {
      using file = temporaryFile(content, name)
      const other = join(dirname(file.path), '..', basename(dirname(file.path)), name)
      const { status, error } = kvmArm64(['trace', 'record', file.path, '--simulate', HOST, '-o', other])
      assert.equal(status, 2)
      assert.match(error, /the input and the output are the same file/)
      assert.equal(readFileSync(file.path, 'utf8'), content)
    })
  }

  it('names the file on a full disk, even if the script catches the error', () => {
    using script = temporaryFile(
      `export default (kvm) => {
        for (let n = 0; n < 2000; n++) try { kvm.checkExtension(n) } catch {}
      }`,
      'a.mjs',
    )
    const full = kvmArm64(['trace', 'record', script.path, '--simulate', HOST, '-o', '/dev/full'])
    assert.deepEqual(full, {
      status: 2,
      out: '',
      error: 'kvm-arm64: /dev/full: cannot be written (ENOSPC)\n',
    })
  })

  it('says once what keeps the differences that it finds', () => {
    const args = ['trace', 'fuzz', '--simulate', HOST, '--against', 'linux-6.1-max', '--ops', '500']
    assert.match(kvmArm64(args).error, /^kvm-arm64: --save DIR writes a trace for each difference/)
  })

  it('finds and saves what two hosts answer differently, the same for the same seed', () => {
    using folder = temporaryFile('')
    const args = ['trace', 'fuzz', '--simulate', HOST, '--against', 'linux-6.1-max', '--ops', '500']
    const save = join(folder.path, '..', 'found')
    const once = kvmArm64([...args, '--save', save])
    assert.equal(once.status, 1)
    assert.match(once.out, / here, .* simulated, after:\n {2}create_vm vm /)
    assert.match(once.out, /500 calls on 6\.12\.\S+ with seed 1: \d+ kinds of difference\n$/)
    // What a guest reads may depend on chance.
    const [found, foundAgain] = [once, kvmArm64(args)].map(({ out }) => out.replaceAll(/ x \[.*?\]/g, ' x'))
    assert.equal(foundAgain, found)
    assert.equal(kvmArm64(['trace', 'replay', join(save, 'seed-1-1.ndjson'), '--simulate', HOST]).status, 0)
  })

  it('finds no difference between a host and its simulation', () => {
    const { status, out } = kvmArm64(['trace', 'fuzz', '--simulate', 'linux-7.2-max', '--ops', '500'])
    assert.equal(status, 0)
    assert.match(out, /0 kinds of difference/)
  })

  for (const [what, name, content, args, problem] of [
    ['a script that is none', 'a.mjs', 'export default 7', ['record'], /default export is not a function/],
    ['a script that does not load', 'a.mjs', 'export default', ['record'], /cannot be loaded/],
    ['a trace that is none', 'a.ndjson', '{}', ['replay'], /a\.ndjson:1: \$\.trace: is not a trace/],
    [
      'a broken line',
      'a.ndjson',
      `${HEAD}{"op":"x"}`,
      ['replay'],
      /a\.ndjson:2: \$\.op: unknown operation "x"/,
    ],
    ['a folder that is none', 'a.mjs', SCRIPT, ['record', '-o', '/none/x'], /cannot be written \(ENOENT\)/],
  ] as const) {
    it(`refuses ${what} as wrong usage`, () => {
      using file = temporaryFile(content, name)
      const [command, ...more] = args
      const { status, out, error } = kvmArm64(['trace', command, file.path, '--simulate', HOST, ...more])
      assert.equal(status, 2)
      assert.equal(out, '')
      assert.match(error, problem)
    })
  }

  it('needs arm64 KVM, or to be told of a host', () => {
    const { status, error } = kvmArm64(['trace', 'fuzz'], { node: onX64 })
    assert.equal(status, 3)
    assert.match(error, /not arm64/)
  })
})
