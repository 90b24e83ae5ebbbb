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
  'an entry of another version': changed(
    (report) => (report.surprise = 1),
    '$.surprise',
    /unknown: written by a newer kvm-arm64\?/,
  ),
  'a register id as a number': changed(
    (report) => (report.registers[1].id = 6929),
    '$.registers[1].id',
    /Expected string/,
  ),
  'a register id of 17 digits': changed(
    (report) => (report.registers[0].id = `0x${'1'.repeat(17)}`),
    '$.registers[0].id',
    /not the id of an arm64 register/,
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
    /Invalid integer: Received a number beyond 2\^53/,
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
    (report) => (report.registers[39].write = { rule: 'fixed', errno: 'EWOULD' }),
    '$.registers[39].write.errno',
    /EWOULD/,
  ),
  'a host name with terminal commands': changed(
    (report) => (report.host.release = '6.12\u001b]0;owned\u0007'),
    '$.host.release',
    /contains control, bidirectional or zero-width characters/,
  ),
  'a register listed twice': changed(
    (report) => report.registers.push(report.registers[0]),
    '$.registers[40].id',
    /is already at \$\.registers\[0\]/,
  ),
  'a register id of no register': changed(
    (report) => (report.registers[1].id = '0x13c020'),
    '$.registers[1].id',
    /not the id of an arm64 register/,
  ),
  'a register id of another architecture': changed(
    (report) => (report.registers[1].id = '0x2030000000100002'),
    '$.registers[1].id',
    /of another architecture: an id of arm64 begins with 0x60/,
  ),
  'a register id of 4096 bits': changed(
    (report) => (report.registers[1].id = '0x6090000000100002'),
    '$.registers[1].id',
    /it says 4096 bits, and a register has 8 to 2048/,
  ),
  'a firmware register of 128 bits': changed(
    (report) => (report.registers[34].id = '0x6040000000140000'),
    '$.registers[34].id',
    /a firmware register has 64 bits, and this id says 128/,
  ),
  'a value wider than its register': changed(
    (report) => (report.registers[1].value = '0x10000000000000000'),
    '$.registers[1].value',
    /0x10000000000000000 is wider than the 64 bits of x1/,
  ),
  'a value wider than an added register': changed(
    (report) => (report.configurations[0].added[0].value = `0x1${'0'.repeat(128)}`),
    '$.configurations[0].added[0].value',
    /Invalid|0x… number|wider than the 512 bits/,
  ),
  'a rule wider than its register': changed(
    (report) => (report.registers[1].write = { rule: 'bits', bits: '0x10000000000000000' }),
    '$.registers[1].write',
    /wider than 64 bits/,
  ),
  'accepted values in another order': changed(
    (report) => (report.registers[38].write.accepts['3:0'] = '2,1'),
    '$.registers[38].write',
    /expected "1-2", found "2,1"/,
  ),
  'a program counter that counts time': changed(
    (report) => (report.registers[32].value = null),
    '$.registers[32].value',
    /is null, but pc does not count time/,
  ),
  'no program counter': changed(
    (report) => report.registers.splice(32, 1),
    '$.registers',
    /lacks pc, which every vCPU has/,
  ),
  'no x7': changed((report) => report.registers.splice(7, 1), '$.registers', /lacks x7/),
  'no version of PSCI': changed(
    (report) => report.registers.splice(34, 1),
    '$.registers',
    /lacks KVM_REG_ARM_PSCI_VERSION/,
  ),
  'a program counter removed by a feature': changed(
    (report) => (report.configurations[0].removed = [report.registers[32].id]),
    '$.configurations[0].removed',
    /lacks pc/,
  ),
  'a change to a register not listed': changed(
    (report) => (report.configurations[0].changed[0].id = '0x6030000000100046'),
    '$.configurations[0].changed[0].id',
    /is not in the list of registers/,
  ),
  'a register added behind the end': changed(
    (report) => (report.configurations[0].added[0].index = 1000),
    '$.configurations[0].added[0].index',
    /1000 is beyond the end of the list/,
  ),
  'a capability called constructor': changed(
    () => undefined,
    '$.capabilities.constructor',
    /is not a known entry/,
    (text) => text.replace('"KVM_CAP_ARM_SVE"', '"constructor"'),
  ),
  'a capability called __proto__': changed(
    () => undefined,
    '$.capabilities.__proto__',
    /is not a known entry/,
    (text) => text.replace('"KVM_CAP_ARM_SVE"', '"__proto__"'),
  ),
  'a key that stands twice': changed(
    () => undefined,
    '$.preferredTarget',
    /appears twice/,
    (text) => text.replace('"preferredTarget":5', '"preferredTarget":5,"preferredTarget":6'),
  ),
  'a host name with bidirectional text': changed(
    (report) => (report.host.release = '6.12\u202e'),
    '$.host.release',
    /bidirectional/,
  ),
  'nobody who answered': changed((report) => delete report.origin, '$.origin', /Expected "origin"/),
  'an added value in upper case': changed(
    (report) => (report.configurations[0].added[0].value = '0xF'),
    '$.configurations[0].added[0].value',
    /is not a 0x… number in lower case/,
  ),
  'a changed register without a value': changed(
    (report) => delete report.configurations[0].changed[0].value,
    '$.configurations[0].changed[0].value',
    /Expected "value" but received undefined/,
  ),
  'a configuration with an entry of another version': changed(
    (report) => (report.configurations[0].surprise = 1),
    '$.configurations[0].surprise',
    /"surprise" is unknown: written by a newer kvm-arm64\?/,
  ),
  'a configuration refused with an errno nobody knows': changed(
    (report) => (report.configurations[1].refused = 'EWOULD'),
    '$.configurations[1].refused',
    /"EWOULD" is unknown/,
  ),
  'a configuration with a feature nobody knows': changed(
    (report) => report.configurations[1].features.push('wings'),
    '$.configurations[1].features[3]',
    /received "wings"/,
  ),
  'a configuration that is neither refused nor described': changed(
    (report) => delete report.configurations[1].refused,
    '$.configurations[1]',
    /Expected "removed" \| "refused" but received undefined/,
  ),
  'a configuration that is a text': changed(
    (report) => (report.configurations[1] = 'sve'),
    '$.configurations[1]',
    /Expected Object but received "sve"/,
  ),
  'a rule of another version': changed(
    (report) => (report.registers[1].write = { rule: 'wish' }),
    '$.registers[1].write.rule',
    /received "wish"/,
  ),
  'a number rounded when it is read': changed(
    (report) => (report.preferredTarget = 'ROUNDED'),
    '$.preferredTarget',
    /Expected <=2147483647 but received a number beyond 2\^53/,
    (text) => text.replace('"ROUNDED"', '12345678901234567890'),
  ),
  'a version rounded when it is read': changed(
    (report) => (report.version = 'ROUNDED'),
    '$.version',
    /is a number beyond 2\^53, but this kvm-arm64 reads version 2/,
    (text) => text.replace('"ROUNDED"', '12345678901234567890'),
  ),
  'a register added twice': changed(
    (report) => report.configurations[0].added.push(report.configurations[0].added[0]),
    '$.configurations[0].added[1].id',
    /is already/,
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
