import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
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
    assert.match(same.out, /^\d+ calls recorded on 6\.12\.\S+, 0 answered otherwise\n$/)

    const other = kvmArm64(['trace', 'replay', trace, '--simulate', 'linux-5.10-max'])
    assert.equal(other.status, 1)
    assert.match(
      other.out,
      /a\.ndjson:\d+: get_one_reg vcpu 0 KVM_REG_ARM_STD_BMAP \(0x6030000000160000\)\n {2}recorded: 0x1\n {2}replayed: ENOENT\n/,
    )

    const again = kvmArm64(['trace', 'record', trace, '--simulate', 'linux-5.10-max'])
    assert.match(again.out, /"id":"0x6030000000160000","errno":"ENOENT"}/)
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

  it('finds and saves what two hosts answer differently, the same for the same seed', () => {
    using folder = temporaryFile('')
    const args = ['trace', 'fuzz', '--simulate', HOST, '--against', 'linux-6.1-max', '--ops', '500']
    const save = join(folder.path, '..', 'found')
    const once = kvmArm64([...args, '--save', save])
    assert.equal(once.status, 1)
    assert.match(once.out, / here, .* simulated, after:\n {2}create_vm vm /)
    assert.match(once.out, /500 calls on 6\.12\.\S+ with seed 1: \d+ kinds of difference\n$/)
    assert.equal(kvmArm64(args).out, once.out)
    assert.equal(kvmArm64(['trace', 'replay', join(save, 'seed-1-1.ndjson'), '--simulate', HOST]).status, 0)
  })

  it('finds no difference between a host and its simulation', () => {
    const { status, out } = kvmArm64(['trace', 'fuzz', '--simulate', 'linux-7.2-max', '--ops', '500'])
    assert.equal(status, 0)
    assert.match(out, /0 kinds of difference/)
  })

  for (const [what, name, content, args, problem] of [
    ['a script that is none', 'a.mjs', 'export default 7', ['record'], /no function as its default export/],
    ['a script that does not load', 'a.mjs', 'export default', ['record'], /cannot be loaded/],
    ['a trace that is none', 'a.ndjson', '{}', ['replay'], /a\.ndjson:1: \$\.trace: is not a trace/],
    [
      'a broken line',
      'a.ndjson',
      `${HEAD}{"op":"x"}`,
      ['replay'],
      /a\.ndjson:2: \$\.op: "x" is no operation/,
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
