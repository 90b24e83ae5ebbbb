import assert from 'node:assert/strict'
import { describe, it } from 'vitest'
import * as fc from 'fast-check'
import { FormatError } from '../../lib/documents/document.js'
import { formatEntry, parseEntry, parseHead } from '../../lib/trace/format.js'
import { type Call, Player, readTrace, recordingBackend, type TraceEntry } from '../../lib/trace/index.js'
import { fuzz } from '../../lib/fuzz/index.js'
import { CallGenerator } from '../../lib/fuzz/generator.js'
import { Random } from '../../lib/fuzz/random.js'
import { simulator } from '../../lib/hosts/index.js'
import { open } from '../fuzz/backends.js'
import { HEAD, temporaryFile } from './files.js'

describe('a trace’s head', () => {
  for (const [text, path, problem] of [
    ['', '$', /is empty$/],
    ['[]', '$.trace', /is not a trace/],
    ['null', '$.trace', /is not a trace/],
    ['{"trace":"strace"}', '$.trace', /is not a trace/],
    [
      '{"trace":"kvm-arm64","version":2,"host":"x"}',
      '$.version',
      /is 2, but this kvm-arm64 reads version 1: written by a newer kvm-arm64\?/,
    ],
    ['{"trace":"kvm-arm64","version":"1","host":"x"}', '$.version', /is not a number/],
    ['{"trace":"kvm-arm64","version":1,"host":"x","host":"y"}', '$.host', /appears twice/],
    ['{"trace":"kvm-arm64","version":1}', '$.host', /Expected "host"|Invalid/],
    ['{"trace":"kvm-arm64","version":1,"host":"x","more":1}', '$.more', /more/],
  ] as const) {
    it(`is refused at ${path}: ${text}`, () => {
      assert.throws(() => parseHead(text, 't:1'), checkError('t:1', path, problem))
    })
  }
})

describe('a trace’s line', () => {
  for (const text of [
    '{"op":"create_vm","vm":0,"type":"0x0","ret":0}',
    '{"op":"create_vm","vm":0,"type":"0x28","errno":"EINVAL"}',
    '{"op":"get_reg_list","vcpu":0,"n_in":"0x1","n":"0x104","errno":"E2BIG"}',
    '{"op":"get_reg_list","vcpu":0,"n_in":"0x2","n":"0x1","regs":["0x6030000000100000"]}',
    '{"op":"set_one_reg","vcpu":0,"id":"0x6030000000160000","value":"0x1","ret":0}',
    '{"op":"set_one_reg","vcpu":0,"id":"0x6030000000160000","addr":"bad","errno":"EFAULT"}',
    '{"op":"get_one_reg","vcpu":0,"id":"0x6080000000150000","value":"0x0"}',
    '{"op":"vcpu_init","vcpu":0,"target":"preferred","features":["0x4"],"ret":0}',
    '{"op":"run","vcpu":0,"immediate_exit":true,"errno":"EINTR"}',
    '{"op":"run","vcpu":0,"immediate_exit":false,"exit":24}',
    '{"op":"check_extension","cap":1,"errno":"ERRNO_123"}',
    '{"op":"set_user_memory_region","vm":0,"slot":0,"flags":0,"address":"0x0","memory":null,"offset":0,"size":0,"ret":0}',
    '{"op":"hvc","vcpu":0,"args":["0x84000000"],"x":["0x10003","0x0","0x0","0x0"]}',
    '{"op":"hvc","vcpu":0,"args":[],"exit":24}',
    '{"op":"smc","vcpu":0,"args":["0x84000002","0x1"],"errno":"EINTR"}',
    '{"op":"reset"}',
    '{"op":"close","vm":3}',
  ]) {
    it(`is read and written back: ${text}`, () => {
      assert.equal(formatEntry(parseEntry(text, 't')), `${text}\n`)
    })
  }

  for (const [text, path, problem] of [
    ['7', '$', /expected a call/],
    ['{"op":"launch"}', '$.op', /unknown operation "launch"/],
    ['{"vm":0}', '$.op', /expected an operation/],
    ['{"op":"create_vm","vm":0,"type":0,"ret":0}', '$.type', /string/],
    ['{"op":"create_vm","vm":0,"type":"0x01","ret":0}', '$.type', /leading zeros/],
    ['{"op":"create_vm","vm":0,"type":"0xA","ret":0}', '$.type', /lower case/],
    ['{"op":"create_vm","vm":-1,"type":"0x0","ret":0}', '$.vm', /0/],
    ['{"op":"create_vm","vm":0,"type":"0x0"}', '$', /expected one outcome/],
    ['{"op":"create_vm","vm":0,"type":"0x0","ret":0,"errno":"EINVAL"}', '$', /expected one outcome/],
    ['{"op":"create_vm","vm":0,"type":"0x0","ret":0,"extra":0}', '$.extra', /extra/],
    ['{"op":"reset","errno":"EIO"}', '$', /reset has no outcome/],
    ['{"op":"check_extension","cap":1,"errno":"broken"}', '$.errno', /not the name of an errno/],
    ['{"op":"has_device_attr","group":0,"attr":"0x0","ret":0}', '$', /exactly one of vm, vcpu, device/],
    ['{"op":"hvc","vcpu":0,"args":["0x0"],"x":["0x0"]}', '$.x', /length/],
    [`{"op":"hvc","vcpu":0,"args":[${Array(8).fill('"0x0"').join()}],"exit":6}`, '$.args', /length/],
    ['{"op":"close","vm":0,"vcpu":1}', '$', /exactly one of/],
    ['{"op":"get_reg_list","vcpu":0,"n_in":"0xffffffff","errno":"EPERM"}', '$.n_in', /more room/],
    ['{"op":"get_one_reg","vcpu":0,"id":"0x60f0000000100000","errno":"EINVAL"}', '$.id', /width of \d+ bits/],
    ['{"op":"set_one_reg","vcpu":0,"id":"0x6030000000160000","ret":0}', '$.value', /"value" or "addr"/],
    [
      '{"op":"set_one_reg","vcpu":0,"id":"0x6030000000160000","value":"0x1","addr":"bad","ret":0}',
      '$.value',
      /not both/,
    ],
    [
      '{"op":"set_one_reg","vcpu":0,"id":"0x6020000000160000","value":"0x100000000","ret":0}',
      '$.value',
      /does not fit the 32 bits/,
    ],
    [
      '{"op":"get_one_reg","vcpu":0,"id":"0x6020000000160000","value":"0x100000000"}',
      '$.value',
      /does not fit the 32 bits/,
    ],
    ['{"op":"create_vm","vm":1e400,"type":"0x0","ret":0}', '$.vm', /Received a number beyond 2\^53/],
    ['{"op":"create_vm","vm":12345678901234567890,"type":"0x0","ret":0}', '$.vm', /<=4294967295/],
    ['{"op":"create_vm","vm":0,"vm":1,"type":"0x0","ret":0}', '$.vm', /appears twice/],
    [
      '{"op":"vcpu_init","vcpu":0,"target":"any","features":[],"ret":0}',
      '$.target',
      /"preferred" \| number but received "any"/,
    ],
    ['{"op":"__proto__"}', '$.op', /unknown operation "__proto__"/],
    ['{"op":"toString"}', '$.op', /unknown operation "toString"/],
    ['{"op":"vcpu_init","vcpu":0,"target":5,"features":["0x100000000"],"ret":0}', '$.features[0]', /32-bit/],
    ['{"op":"set_device_attr","vm":0,"group":0,"attr":"0x0","data":"abc","ret":0}', '$.data', /even number/],
  ] as const) {
    it(`is refused at ${path}: ${text}`, () => {
      assert.throws(() => parseEntry(text, 't:2'), checkError('t:2', path, problem))
    })
  }

  it('is refused or read, whatever it is, and never throws anything but a FormatError', () => {
    fc.assert(
      fc.property(fc.json(), (text) => {
        try {
          parseEntry(text, 't')
        } catch (error) {
          assert.ok(error instanceof FormatError)
        }
      }),
    )
  })

  it('says again what every generated call says', () => {
    const player = new Player(open(simulator('linux-6.12-max')))
    const generator = new CallGenerator(new Random(3), 'everything')
    for (let count = 0; count < 3000; count++) {
      if (count % 100 === 0) {
        player.reset()
        generator.restart()
      }
      const call = generator.call()
      const outcome = player.perform(call)
      generator.learn(call, outcome)
      assert.deepEqual(parseEntry(formatEntry({ call, outcome }), 't'), plainCopy({ call, outcome }))
    }
  })
})

describe('a trace’s file', () => {
  it('names file and line of what is wrong', () => {
    using file = temporaryFile(`${HEAD}{"op":"reset"}\n{"op":"reset"}\n{"op":"rest"}\n`)
    const { head, entries } = readTrace(file.path)
    assert.equal(head.host, '6.12.0-test')
    assert.throws(() => [...entries], checkError(`${file.path}:4`, '$.op', /unknown operation "rest"/))
  })

  for (const [what, content, problem] of [
    ['an empty file', '', /is empty/],
    ['a file that is something else', '#!/bin/sh\n', /:1: is not JSON/],
    ['a file without the head', '{"op":"reset"}\n', /:1: \$\.trace: .* expected the head/],
    ['a line without end', HEAD + ' '.repeat(5 * 1024 * 1024), /:2: is longer than 4 MiB/],
    ['a line cut short', `${HEAD}{"op":"res`, /is not JSON/],
  ] as const) {
    it(`is refused where it is ${what}`, () => {
      using file = temporaryFile(content)
      assert.throws(() => [...readTrace(file.path).entries], problem)
    })
  }

  it('is refused where a line is not UTF-8', () => {
    using file = temporaryFile(Buffer.concat([Buffer.from(HEAD), Buffer.of(0x22, 0xff, 0x22, 0x0a)]))
    assert.throws(() => [...readTrace(file.path).entries], checkError(`${file.path}:2`, '$', /not UTF-8/))
  })

  it('is refused where there is none', () => {
    assert.throws(() => readTrace('/nowhere/at/all'), checkError('/nowhere/at/all', '$', /ENOENT/))
  })

  it('may have empty lines, which count', () => {
    using file = temporaryFile(`${HEAD}\n{"op":"reset"}\n\n{"op":"reset"}\n`)
    const lines = Array.from(readTrace(file.path).entries, ({ line }) => line)
    assert.deepEqual(lines, [3, 5])
  })

  it('may have a character cut by the end of a chunk', () => {
    // The first of its two bytes ends 256 KiB, which chunks of any power of two up to that size end with.
    const start = '{"op":"'
    const emptyLines = 256 * 1024 - 1 - HEAD.length - start.length
    using file = temporaryFile(`${HEAD}${'\n'.repeat(emptyLines)}${start}é"}\n`)
    assert.throws(
      () => [...readTrace(file.path).entries],
      checkError(`${file.path}:${emptyLines + 2}`, '$.op', /unknown operation "é"/),
    )
  })
})

it('the same seed finds the same', () => {
  const host = simulator('linux-6.1-max')
  const other = simulator('linux-7.2-max')
  // Answers may hold random bits and the time.
  const calls = () =>
    [...fuzz(open(host), open(other), { seed: 5, operations: 2000 })].map(({ trace }) =>
      trace.map(({ call }) => call),
    )
  const [once, again] = [calls(), calls()]
  assert.ok(once.length > 3)
  assert.deepEqual(again, once)
})

it('the same seed makes the same calls, whatever the time', () => {
  const host = simulator('linux-6.12-max')
  const calls = (): Call[] => {
    const made: Call[] = []
    const recorded = open(recordingBackend(host, ({ call }) => made.push(call)))
    assert.deepEqual([...fuzz(recorded, open(host), { seed: 5, operations: 20_000 })], [])
    return made
  }
  const [once, again] = [calls(), calls()]
  assert.ok(once.length > 20_000)
  assert.deepEqual(again, once)
})

/** As JSON has it: without entries that are undefined. */
function plainCopy(entry: TraceEntry): unknown {
  return JSON.parse(JSON.stringify(entry))
}

function checkError(source: string, path: string, problem: RegExp): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof FormatError, String(error))
    assert.equal(error.source, source)
    assert.equal(error.path, path)
    assert.match(error.message, problem)
    return true
  }
}
