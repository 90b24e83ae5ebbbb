import { sampleReport } from './sample.js'

/** Texts no reader may take for a report, each with what the error must say beside the file's name. */
export const badReports: Record<string, { text: string | Buffer; path: string; problem: RegExp }> = {
  'an empty file': { text: '', path: '$', problem: /is empty/ },
  'a file of blanks': { text: ' \n\t\n', path: '$', problem: /is empty/ },
  'a truncated report': {
    text: JSON.stringify(sampleReport()).slice(0, 500),
    path: '$',
    problem: /is not JSON/,
  },
  'text that is not JSON': { text: 'MIDR_EL1: 0x1', path: '$', problem: /is not JSON/ },
  'a report in UTF-16': {
    text: Buffer.from(JSON.stringify(sampleReport()), 'utf16le'),
    path: '$',
    problem: /is not JSON/,
  },
  'a byte that is not UTF-8': {
    text: Buffer.concat([Buffer.from('{"format":"'), Buffer.from([0xff]), Buffer.from('"}')]),
    path: '$',
    problem: /is not UTF-8/,
  },
  null: { text: 'null', path: '$.format', problem: /is not a report/ },
  'a list': { text: '[]', path: '$.format', problem: /is not a report/ },
  'a number': { text: '1e400', path: '$.format', problem: /is not a report/ },
  'another format': {
    text: '{"format":"kvm-arm64/state","version":1}',
    path: '$.format',
    problem: /expected "kvm-arm64\/report"/,
  },
  'a list nested 100000 deep': {
    text: '['.repeat(100_000) + ']'.repeat(100_000),
    path: '$.format',
    problem: /is not a report/,
  },
  'a version nested 100000 deep': {
    text: `{"format":"kvm-arm64/report","version":${'['.repeat(100_000)}${']'.repeat(100_000)}}`,
    path: '$.version',
    problem: /is not a number/,
  },
  'an entry nested 100000 deep': changed(
    (report) => {
      report.host = 'DEEP'
    },
    '$.host.release',
    /Expected "release"/,
    (text) => text.replace('"DEEP"', '['.repeat(100_000) + ']'.repeat(100_000)),
  ),
  'a later version': changed(
    (report) => (report.version = 3),
    '$.version',
    /is 3, .* reads version 2: written by a newer kvm-arm64\?/,
  ),
  'no version': changed((report) => delete report.version, '$.version', /is not a number/),
  'a version as text': changed((report) => (report.version = '2'), '$.version', /is not a number/),
  'a missing entry': changed((report) => delete report.traits, '$.traits', /Expected "traits"/),
  'an entry of another version': changed((report) => (report.surprise = 1), '$.surprise', /Expected never/),
  'a register id as a number': changed(
    (report) => (report.registers[1].id = 6929),
    '$.registers[1].id',
    /Expected string/,
  ),
  'a register id of 17 digits': changed(
    (report) => (report.registers[0].id = `0x${'1'.repeat(17)}`),
    '$.registers[0].id',
    /64-bit/,
  ),
  'a value of 100000 digits': changed(
    (report) => (report.registers[0].value = `0x${'f'.repeat(100_000)}`),
    '$.registers[0].value',
    /0x… number/,
  ),
  'a value in upper case': changed(
    (report) => (report.registers[0].value = '0xF'),
    '$.registers[0].value',
    /lower case/,
  ),
  'a value with leading zeros': changed(
    (report) => (report.registers[0].value = '0x01'),
    '$.registers[0].value',
    /leading zeros/,
  ),
  'a number beyond 32 bits': changed(
    (report) => (report.preferredTarget = 2 ** 40),
    '$.preferredTarget',
    /Expected <=2147483647/,
  ),
  'a number that is infinite': changed(
    (report) => (report.preferredTarget = 'HUGE'),
    '$.preferredTarget',
    /Invalid/,
    (text) => text.replace('"HUGE"', '1e999'),
  ),
  'a mapping of no size': changed((report) => (report.vcpuMmapSize = 0), '$.vcpuMmapSize', /Expected >=4096/),
  'no registers': changed((report) => (report.registers = []), '$.registers', /Expected >=1/),
  'a million registers': changed(
    (report) => {
      const [register] = report.registers
      report.registers = Array.from({ length: 1_000_000 }, () => register)
    },
    '$.registers',
    /Expected <=10000/,
  ),
  'a capability nobody knows': changed(
    (report) => (report.capabilities.KVM_CAP_TELEPATHY = [1, 1]),
    '$.capabilities.KVM_CAP_TELEPATHY',
    /KVM_CAP_TELEPATHY/,
  ),
  'a feature nobody knows': changed(
    (report) => report.traits.init.supported.push('wings'),
    '$.traits.init.supported[4]',
    /wings/,
  ),
  'an errno nobody knows': changed(
    (report) => (report.registers[6].write = { rule: 'fixed', errno: 'EWOULD' }),
    '$.registers[6].write.errno',
    /EWOULD/,
  ),
  'a host name with terminal commands': changed(
    (report) => (report.host.release = '6.12\u001b]0;owned\u0007'),
    '$.host.release',
    /control characters/,
  ),
  'a register listed twice': changed(
    (report) => report.registers.push(report.registers[0]),
    '$.registers[7].id',
    /stands already at \$\.registers\[0\]/,
  ),
  'a register added twice': changed(
    (report) => report.configurations[0].added.push(report.configurations[0].added[0]),
    '$.configurations[0].added[1].id',
    /stands already/,
  ),
}

// oxlint-disable-next-line typescript/no-explicit-any -- what is broken on purpose has no type
type Broken = any

function changed(
  change: (report: Broken) => unknown,
  path: string,
  problem: RegExp,
  edit = (text: string) => text,
): { text: string; path: string; problem: RegExp } {
  const report: Broken = sampleReport()
  change(report)
  return { text: edit(JSON.stringify(report)), path, problem }
}
