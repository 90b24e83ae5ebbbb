/** Files of other tools, where a document of this package is due: the error says what they are, and what reads them. */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, test } from 'vitest'
import { FormatError } from '../../lib/documents/document.js'
import { readBaseline } from '../../lib/fleet/baseline/format.js'
import { parseFingerprint } from '../../lib/interchange/fingerprint.js'
import { readState } from '../../lib/migration/state.js'
import { readReport } from '../../lib/report/read.js'

const folder = mkdtempSync(join(tmpdir(), 'kvm-arm64-foreign-'))
afterAll(() => rmSync(folder, { recursive: true }))

const foreign: [what: string, content: string | Uint8Array, said: RegExp][] = [
  [
    'a cloud-hypervisor snapshot',
    '{"id":"vm","snapshots":{"vcpu0":{"snapshot_data":{"state":"{}"}}}}',
    /the state of a cloud-hypervisor snapshot, which only cloud-hypervisor reads; kvm-arm64 capture/,
  ],
  [
    'the CPU model of QMP',
    '{"return":{"model":{"name":"host","props":{"pmu":true}}}}',
    /QMP's reply to query-cpu-model-expansion: .* import FINGERPRINT --with FILE/,
  ],
  ['the GICs of QMP', '{"return":[{"version":3,"emulated":true,"kernel":true}]}', /query-gic-capabilities/],
  ['another reply of QMP', '{"return":{}}', /but a reply of QMP$/],
  [
    'an x86 CPU template',
    '{"cpuid_modifiers":[],"msr_modifiers":[]}',
    /CPU template of Firecracker for x86_64/,
  ],
  ['an arm64 CPU template', '{"reg_modifiers":[]}', /CPU template of Firecracker; kvm-arm64 import/],
  [
    'an x86 fingerprint',
    '{"guest_cpu_config":{"cpuid_modifiers":[]}}',
    /fingerprint of cpu-template-helper for x86_64/,
  ],
  ['a fingerprint', '{"guest_cpu_config":{}}', /fingerprint of cpu-template-helper; kvm-arm64 import/],
  [
    'a Firecracker snapshot',
    Uint8Array.from([0, 0, 0xaa, 0xaa, 0x84, 0x19, 0x10, 7, 1, 2, 3]),
    /state file of a Firecracker snapshot; .*snapshot-editor/,
  ],
  ['that of an x86 VM', Uint8Array.from([0, 0, 0x64, 0x86, 0x84, 0x19, 0x10, 7]), /snapshot of an x86_64 VM/],
  [
    'the print of snapshot-editor',
    'vcpu 0:\nVcpuState { .. }\n',
    /snapshot-editor prints .* capture --vmm firecracker/,
  ],
  ['a migration stream', 'QEVM\0\0\0\u0003', /a migration stream of QEMU/],
  ['XML of libvirt', '<?xml version="1.0"?>\n<capabilities>', /XML of libvirt \(<capabilities>\)/],
]

const readers: [noun: string, read: (file: string) => unknown][] = [
  ['report', readReport],
  ['state', readState],
  ['baseline', readBaseline],
]

describe('a file of another tool', () => {
  for (const [what, content, said] of foreign) {
    test(`is named: ${what}`, () => {
      const file = join(folder, 'file')
      writeFileSync(file, content)
      for (const [noun, read] of readers) {
        assert.throws(
          () => read(file),
          (error: unknown) => {
            assert.ok(error instanceof FormatError)
            assert.equal(error.path, '$')
            assert.match(error.message, said)
            assert.ok(error.message.startsWith(`${file}: is not a ${noun} but `), error.message)
            return true
          },
        )
      }
    })
  }

  test('is named where a fingerprint is due', () => {
    assert.throws(
      () => parseFingerprint('{"cpuid_modifiers":[]}', 'file'),
      /file: is not a fingerprint but a CPU template of Firecracker for x86_64/,
    )
  })

  test('that nobody knows is only said not to be the document', () => {
    const file = join(folder, 'file')
    for (const content of [
      '{}',
      '[]',
      '{"snapshots":1}',
      '{"id":"vm","snapshots":[]}',
      'null',
      '"vcpu 0:"',
    ]) {
      writeFileSync(file, content)
      assert.throws(() => readReport(file), /\$\.format: is not a report: expected "kvm-arm64\/report"/)
    }
  })
})
