import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, test } from 'vitest'
import { captureHost } from '../../lib/migration/capture.js'
import { readState, type State } from '../../lib/migration/state.js'
import { openKvm } from '../../lib/kvm/index.js'
import { FormatError } from '../../lib/documents/document.js'
import { formatDocument } from '../../lib/documents/write.js'
import { builtInReport, simulator } from '../../lib/hosts/index.js'

const folder = mkdtempSync(join(tmpdir(), 'kvm-arm64-state-'))
afterAll(() => rmSync(folder, { recursive: true }))

function sample(): State {
  using kvm = openKvm(simulator('linux-6.12-neoverse-n1'))
  return captureHost(kvm, { vcpus: 2 })
}

// oxlint-disable-next-line typescript/no-explicit-any -- what is broken on purpose has no type
type Broken = any

/** What no reader may take for a state: how it is broken, the entry the error names, what it says. */
const bad: Record<string, [(state: Broken) => unknown, string, RegExp]> = {
  'a later version': [(state) => (state.version = 3), '$.version', /is 3, but .* reads version 2/],
  'an entry of a later version': [
    (state) => (state.vm.realm = 1),
    '$.vm.realm',
    /"realm" is unknown: written by a newer kvm-arm64\?/,
  ],
  'no vCPU': [(state) => (state.vcpus = []), '$.vcpus', />=1/],
  'two vCPUs of one id': [(state) => (state.vcpus[1].id = 0), '$.vcpus[1].id', /is already/],
  'a vCPU without registers': [
    (state) => (state.vcpus[1].registers = []),
    '$.vcpus[1].registers',
    /lacks pc, which every vCPU has/,
  ],
  'a vCPU that lacks one of the general registers': [
    (state) =>
      (state.vcpus[0].registers = state.vcpus[0].registers.filter(
        ({ name }: { name: string }) => name !== 'x30',
      )),
    '$.vcpus[0].registers',
    /lacks x30, which every vCPU has/,
  ],
  'a register twice': [
    (state) => state.vcpus[0].registers.push(state.vcpus[0].registers[0]),
    '$.vcpus[0].registers[259].id',
    /is already at \$\.vcpus\[0\]\.registers\[0\]/,
  ],
  'a value wider than its register': [
    (state) => (state.vcpus[1].registers[0].value = `0x1${'0'.repeat(16)}`),
    '$.vcpus[1].registers[0].value',
    /wider than the 64 bits of x0/,
  ],
  'a wide firmware register, which old kernels copy over their stack': [
    (state) => (state.vcpus[0].registers[0].id = '0x6080000000140000'),
    '$.vcpus[0].registers[0].id',
    /a firmware register has 64 bits, and this id says 2048/,
  ],
  'a register of another architecture': [
    (state) => (state.vcpus[0].registers[0].id = '0x4030000000160000'),
    '$.vcpus[0].registers[0].id',
    /another architecture/,
  ],
  'a register wider than any': [
    (state) => (state.vcpus[0].registers[0].id = '0x60f0000000100000'),
    '$.vcpus[0].registers[0].id',
    /it says 262144 bits, and a register has 8 to 2048/,
  ],
  'events of other than 64 bytes': [
    (state) => (state.vcpus[0].events = '00'),
    '$.vcpus[0].events',
    /64 bytes/,
  ],
  'a feature nobody knows': [
    (state) => state.vcpus[0].features.push('wings'),
    '$.vcpus[0].features[1]',
    /wings/,
  ],
  'more vCPUs than any VM has': [
    (state) => (state.vcpus = Array.from({ length: 5000 }, () => ({ ...state.vcpus[0], registers: [] }))),
    '$.vcpus',
    /Expected <=4096/,
  ],
}

function refusal(text: string): FormatError {
  const file = join(folder, 'bad.json')
  writeFileSync(file, text)
  try {
    readState(file)
  } catch (error) {
    assert.ok(error instanceof FormatError, String(error))
    assert.ok(error.message.startsWith(file), error.message)
    return error
  }
  return assert.fail('was taken for a state')
}

describe('reading a state', () => {
  test('gives back what was written', () => {
    const file = join(folder, 'good.json')
    const state = sample()
    writeFileSync(file, formatDocument(state))
    assert.deepEqual(readState(file), state)
  })

  for (const [what, [change, path, problem]] of Object.entries(bad)) {
    test(`refuses ${what}, naming the entry`, () => {
      const state = sample()
      change(state)
      const error = refusal(JSON.stringify(state))
      assert.equal(error.path, path)
      assert.match(error.message, problem)
    })
  }

  test('refuses a report, saying what it is', () => {
    assert.match(
      refusal(JSON.stringify(builtInReport('linux-6.1-max'))).message,
      /\$\.format: is not a state: expected "kvm-arm64\/state", found "kvm-arm64\/report"/,
    )
  })

  test('refuses a key that stands twice', () => {
    const error = refusal(JSON.stringify(sample()).replace('"mpState":', '"mpState":"stopped","mpState":'))
    assert.equal(error.path, '$.vcpus[0].mpState')
    assert.match(error.message, /appears twice/)
  })

  test('refuses a truncated state', () => {
    assert.match(refusal(JSON.stringify(sample()).slice(0, 5000)).message, /is not JSON/)
  })
})
