import assert from 'node:assert/strict'
import { describe, test } from 'vitest'
import { MachineError } from '../../lib/machine/errors.js'
import { GuestConsole } from '../../lib/machine/guest-console.js'

function open(): { guest: GuestConsole; typed: string[]; print: (text: string) => void } {
  const typed: string[] = []
  const guest = new GuestConsole((bytes) => typed.push(Buffer.from(bytes).toString()))
  return { guest, typed, print: (text) => guest.print(Buffer.from(text)) }
}

function isError(code: string, problem: RegExp): (error: unknown) => boolean {
  return (error) => error instanceof MachineError && error.code === code && problem.test(error.message)
}

describe('expect()', () => {
  test('finds what was printed before and after the call, each once', async () => {
    const { guest, print } = open()
    print('one two ')
    assert.equal((await guest.expect(/(\w+) /))[1], 'one')
    assert.equal((await guest.expect(/(\w+) /))[1], 'two')
    const later = guest.expect(/t(\w)ree/)
    for (const letter of 'three') print(letter)
    assert.equal((await later)[1], 'h')
  })

  test('takes a text as it is, and a pattern with flags that keep a position', async () => {
    const { guest, print } = open()
    print('a.b [x] $ axb')
    assert.equal((await guest.expect('[x] $')).index, 4)
    assert.equal((await guest.expect(/a.b/gy)).index, 1)
  })

  test('puts characters together that come in pieces', async () => {
    const { guest } = open()
    for (const byte of Buffer.from('→')) guest.print(Uint8Array.of(byte))
    await guest.expect('→', { timeout: 1000 })
  })

  test('rejects after its time, with what was printed', async () => {
    const { guest, print } = open()
    print('some line\r\nanother')
    await assert.rejects(guest.expect(/never/, { timeout: 5 }), (error) => {
      assert.ok(isError('ERR_MACHINE_TIMEOUT', /did not print \/never\/ within 5 ms/)(error))
      assert.equal((error as MachineError).console, 'some line\nanother')
      return true
    })
    // And another call can follow.
    await guest.expect('another')
  })

  test('rejects when the machine ends, and at once when it has ended', async () => {
    const { guest, print } = open()
    const waiting = guest.expect(/never/)
    print('last words')
    guest.end('off')
    await assert.rejects(waiting, isError('ERR_MACHINE_ENDED', /ended \(off\) before it printed/))
    await guest.expect('last words')
    await assert.rejects(guest.expect('more'), isError('ERR_MACHINE_ENDED', /ended/))
  })

  test('refuses a second call meanwhile, and other arguments', async () => {
    const { guest, print } = open()
    const waiting = guest.expect('x')
    await assert.rejects(guest.expect('y'), TypeError)
    print('x')
    await waiting
    await assert.rejects(guest.expect(5 as never), TypeError)
    await assert.rejects(guest.expect('x', { timeout: -1 }), RangeError)
    await assert.rejects(guest.expect('x', { time: 1 } as never), TypeError)
  })

  test('keeps a bounded part of what a guest prints', async () => {
    const { guest, print } = open()
    for (let count = 0; count < 40; count++) print('x'.repeat(100_000))
    print('end')
    assert.ok(guest.transcript.length <= 1 << 20)
    await guest.expect(/xend/)
  })
})

test('write() passes on texts and copies of bytes', () => {
  const { guest, typed } = open()
  guest.write('ls\n')
  guest.write(Buffer.from('ü'))
  assert.deepEqual(typed, ['ls\n', 'ü'])
  assert.throws(() => guest.write(5 as never), TypeError)
})

test('pause() and resume() hold the device back, each once', () => {
  const held: boolean[] = []
  const guest = new GuestConsole(
    () => undefined,
    (isPaused) => held.push(isPaused),
  )
  guest.resume()
  guest.pause()
  guest.pause()
  assert.equal(guest.isPaused, true)
  guest.resume()
  assert.deepEqual(held, [true, false])
})

test('listen() delivers bytes until it is ended', () => {
  const { guest, print } = open()
  const heard: string[] = []
  const end = guest.listen((bytes) => heard.push(Buffer.from(bytes).toString()))
  print('a')
  end()
  print('b')
  assert.deepEqual(heard, ['a'])
})
