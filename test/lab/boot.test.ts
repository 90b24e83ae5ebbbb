import assert from 'node:assert/strict'
import { spawn, type ChildProcess } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { readdirSync, readFileSync } from 'node:fs'
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PassThrough, Readable, Writable } from 'node:stream'
import { text } from 'node:stream/consumers'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, it } from 'vitest'
import { bootLab, type Lab } from '../../lib/lab/index.js'
import { ensureKernel } from '../../lib/lab/kernels.js'
import { newerCpus } from '../../lib/lab/lab.js'
import { cpusOf, ensureQemu } from '../../lib/lab/qemus.js'
import { main } from '../cli/run.js'

describe('a command in the lab', () => {
  let lab: Lab
  let bringingUp: number
  beforeAll(async () => {
    const started = performance.now()
    lab = await bootLab({ kernel: '6.12' })
    bringingUp = performance.now() - started
  })
  afterAll(() => lab.close())

  const say = async (command: string[]) => String((await lab.run(command)).stdout)

  it('runs on an arm64 kernel with KVM, under Node', async () => {
    const { status, stdout, stderr } = await lab.run([
      'node',
      '-p',
      '[process.arch, os.release(), fs.statSync("/dev/kvm").isCharacterDevice()].join()',
    ])
    assert.deepEqual([status, String(stdout), String(stderr)], [0, `arm64,${lab.kernel?.release},true\n`, ''])
  })

  it('is told how long it took, and what it took to bring the machine up', async () => {
    const { prepare, boot, copy } = lab.timings
    const told = prepare + boot + copy
    assert.ok(told > 0.8 * bringingUp && told <= bringingUp, `${told} of ${bringingUp} ms`)
    assert.ok(boot > copy)
    const { milliseconds } = await lab.run(['sleep', '2'])
    assert.ok(milliseconds > 1900 && milliseconds < 20_000, `${milliseconds} ms`)
  })

  it('gives back its exit status, its output and its errors, apart', async () => {
    const { status, signal, stdout, stderr } = await lab.run(['sh', '-c', 'echo out; echo err >&2; exit 7'])
    assert.deepEqual([status, signal, String(stdout), String(stderr)], [7, undefined, 'out\n', 'err\n'])
  })

  it('is reported as a shell does when it dies by a signal or is not there', async () => {
    const killed = await lab.run(['sh', '-c', 'kill -SEGV $$'])
    assert.deepEqual([killed.status, killed.signal], [139, 'SIGSEGV'])
    const missing = await lab.run(['no-such-command'])
    assert.equal(missing.status, 127)
    assert.match(String(missing.stderr), /no-such-command: not found/)
  })

  it('gets its arguments as they are', async () => {
    const args = ['', ' ', "it's", '"', '$HOME `id` \\', 'two\nlines', '*', 'ünï', '-n']
    assert.deepEqual(
      JSON.parse(await say(['node', '-p', 'JSON.stringify(process.argv.slice(1))', '--', ...args])),
      args,
    )
  })

  it('gets its input to the end and binary data unharmed both ways', async () => {
    const data = Buffer.alloc(300_000, Buffer.from(Array.from({ length: 257 }, (_, index) => index & 255)))
    const { stdout } = await lab.run(['cat'], { stdin: data })
    assert.ok(stdout.equals(data))
    const empty = await lab.run(['wc', '-c'], { stdin: '' })
    assert.equal(String(empty.stdout), '0\n')
    const none = await lab.run(['wc', '-c'])
    assert.equal(String(none.stdout), '0\n')
  })

  it('gets megabytes of input that were given at once, and Node.js warns of nothing', async () => {
    const warnings: Error[] = []
    const warned = (warning: Error): unknown => warnings.push(warning)
    process.on('warning', warned)
    try {
      const { stdout } = await lab.run(['wc', '-c'], { stdin: Buffer.alloc(16 << 20) })
      assert.equal(String(stdout), `${16 << 20}\n`)
      assert.deepEqual(warnings, [])
    } finally {
      process.off('warning', warned)
    }
  })

  it('may write megabytes, quickly or to a slow reader', async () => {
    const script =
      'process.stdout.write(Array.from({ length: 40000 }, (_, index) => `${index}\\n`.padStart(64)).join(""))'
    const expected = Array.from({ length: 40000 }, (_, index) => `${index}\n`.padStart(64)).join('')
    const { stdout } = await lab.run(['node', '-e', script])
    assert.ok(String(stdout) === expected)

    const slow = new PassThrough({ highWaterMark: 1024 })
    const reading = (async () => {
      let length = 0
      for await (const chunk of slow) {
        length += (chunk as Buffer).length
        if (length < 100_000) await sleep(5)
      }
      return length
    })()
    await lab.run(['node', '-e', script], { stdout: slow })
    slow.end()
    assert.equal(await reading, expected.length)
  })

  it('need not read its input, and leaves none of it to the next', async () => {
    const endless = Readable.from(
      (function* () {
        for (;;) yield Buffer.alloc(65536, 'x')
      })(),
    )
    const { status } = await lab.run(['true'], { stdin: endless })
    endless.destroy()
    assert.equal(status, 0)
    const { stdout } = await lab.run(['cat'], { stdin: 'mine' })
    assert.equal(String(stdout), 'mine')
  })

  it('fails when the stream that feeds it does, and the next one is not disturbed', async () => {
    const broken = new Readable({
      read() {
        this.destroy(new Error('the source broke'))
      },
    })
    await assert.rejects(lab.run(['cat'], { stdin: broken }), /the source broke/)
    assert.equal(await say(['echo', 'fine']), 'fine\n')
  })

  it('leaves no process behind, and does not wait for one', async () => {
    const { stdout } = await lab.run(['sh', '-c', 'sleep 1000 & setsid sleep 2000 & echo started'])
    assert.equal(String(stdout), 'started\n')
    assert.doesNotMatch(await say(['ps', '-o', 'args']), /sleep [12]000/)
  })

  it('comes after those asked for before it', async () => {
    const all = await Promise.all(
      ['one', 'two', 'three'].map((word) => say(['sh', '-c', `echo ${word} >>/tmp/order; cat /tmp/order`])),
    )
    assert.equal(all[2], 'one\ntwo\nthree\n')
  })

  it('finds kvm-arm64 on its PATH and as a package, and its streams under /dev', async () => {
    assert.match(await say(['kvm-arm64', '--help']), /kvm-arm64/)
    assert.equal(await say(['sh', '-c', 'echo x >/dev/stdout']), 'x\n')
    const entry = await say([
      'node',
      '--input-type=module',
      '-e',
      'console.log(import.meta.resolve("kvm-arm64"))',
    ])
    assert.match(entry, /^file:\/\/\/node_modules\/kvm-arm64\//)
  })

  // The last one: the machine does not survive it.
  it('that makes the kernel panic ends with its words', async () => {
    const failure = { code: 'ERR_LAB_PANIC', message: /Kernel panic - not syncing: sysrq triggered crash/ }
    await assert.rejects(lab.run(['sh', '-c', 'echo c >/proc/sysrq-trigger']), failure)
    await assert.rejects(lab.run(['true']), failure)
  })
})

describe('a lab', () => {
  it('is ended by a command that takes too long, even while nobody takes its output', async () => {
    await using lab = await bootLab()
    const stuck = new Writable({ highWaterMark: 1, write() {} })
    const failure = { code: 'ERR_LAB_TIMEOUT', message: 'the machine did not end yes within 1 s' }
    await assert.rejects(lab.run(['yes'], { stdout: stuck, timeout: 1 }), failure)
    await assert.rejects(lab.run(['true']), failure)
  })

  it('fails what it still runs when it is closed', async () => {
    const lab = await bootLab()
    const running = lab.run(['sleep', '1000'])
    setTimeout(() => void lab.close(), 100)
    await assert.rejects(running, { code: 'ERR_LAB_CLOSED' })
  })

  it('says so when its machine powers itself off', async () => {
    await using lab = await bootLab()
    await assert.rejects(lab.run(['poweroff', '-f']), { code: 'ERR_LAB_STOPPED', message: /powered off/ })
  })
})

describe('every kernel of the lab', () => {
  for (const kernel of ['5.10', '6.1', '6.18', '7.2']) {
    it(`${kernel} has KVM and runs Node`, async () => {
      await using lab = await bootLab({ kernel })
      const { stdout } = await lab.run(['node', '-p', 'os.release() + fs.existsSync("/dev/kvm")'])
      assert.equal(String(stdout), `${lab.kernel?.release}true\n`)
      assert.equal(lab.kernel?.series, kernel)
    })
  }

  it('that lacks the drivers the lab needs is refused with their names', async () => {
    const { image } = await ensureKernel('5.10')
    await assert.rejects(bootLab({ image }), {
      code: 'ERR_LAB_UNFIT_KERNEL',
      message: /CONFIG_VIRTIO_CONSOLE=y/,
    })
  })

  it('may come from a file', async () => {
    const { image } = await ensureKernel('6.12')
    await using lab = await bootLab({ image, smp: 1, memory: 512, cpu: 'cortex-a57', append: 'lab.test=1' })
    const { stdout } = await lab.run(['sh', '-c', 'nproc; cat /proc/cmdline'])
    assert.match(String(stdout), /^1\n.* lab\.test=1\n$/)
  })
})

describe('a newer QEMU', () => {
  it('brings CPUs that the installed one may lack, each named where it is missed', async () => {
    const qemu = await ensureQemu('11.1')
    assert.match(qemu.version, /^11\.1\.\d+$/)
    const offered = await cpusOf(qemu)
    for (const cpu of newerCpus) assert.ok(offered.includes(cpu), cpu)
  })

  it('runs guests at EL2 on its CPU max, whose memory has tags if asked for', async () => {
    await using lab = await bootLab({
      qemu: '11.1',
      kernel: '7.2',
      cpu: 'max',
      mte: true,
      append: 'kvm-arm.mode=nested',
    })
    const { stdout } = await lab.run(['sh', '-c', 'dmesg; cat /proc/cpuinfo'])
    assert.match(String(stdout), /kvm \[1\]: VHE\+NV2 mode initialized/)
    assert.match(String(stdout), /Features.* mte/)
  })
})

describe('a machine with other parts', () => {
  it('can only make a GICv2 if it has one', async () => {
    await using lab = await bootLab({ gic: '2' })
    const { stdout } = await lab.run(['sh', '-c', 'dmesg'])
    assert.match(String(stdout), /GICv2|vgic interrupt/)
    assert.doesNotMatch(String(stdout), /GICv3/)
  })

  it('has pages of 16 KiB if its kernel does', async () => {
    await using lab = await bootLab({ kernel: '6.12', pages: '16k' })
    assert.equal(lab.kernel?.pages, '16k')
    const { stdout } = await lab.run(['sh', '-c', 'grep -m1 KernelPageSize /proc/self/smaps'])
    assert.match(String(stdout), / 16 kB/)
  })
})

/** Starts the command line with a word in the kernel's arguments by which its QEMU is known. */
function start(args: string[], options: { cwd?: string } = {}): { child: ChildProcess; word: string } {
  const word = `lab.test=${randomUUID()}`
  const child = spawn(process.execPath, [main, 'lab', 'run', '--append', word, ...args], {
    ...options,
    stdio: 'pipe',
  })
  return { child, word }
}

function machines(word: string): string[] {
  return readdirSync('/proc').filter((pid) => {
    if (!/^\d+$/.test(pid)) return false
    try {
      const command = readFileSync(`/proc/${pid}/cmdline`, 'utf8')
      return command.startsWith('qemu') && command.includes(word)
    } catch {
      return false
    }
  })
}

async function until(condition: () => boolean): Promise<void> {
  for (let tries = 0; !condition() && tries < 400; tries++) await sleep(25)
  assert.ok(condition())
}

describe('kvm-arm64 lab run', () => {
  it('passes input, output, errors and status through, with the files its arguments name', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'kvm-arm64-test-'))
    try {
      await writeFile(
        join(directory, 'script.mjs'),
        `import { readFileSync } from 'node:fs'
         console.error('problems: none')
         console.log(readFileSync(0, 'utf8').toUpperCase() + readFileSync('data', 'utf8'))
         process.exit(42)`,
      )
      await writeFile(join(directory, 'data'), ' and data')
      const { child } = start(['--copy', 'data', '--', 'node', 'script.mjs'], { cwd: directory })
      child.stdin?.end('input')
      const [out, err, [status]] = await Promise.all([
        text(child.stdout!),
        text(child.stderr!),
        once(child, 'exit'),
      ])
      assert.deepEqual([status, out], [42, 'INPUT and data\n'])
      assert.match(err, /problems: none\n$/)
      assert.deepEqual((await readdir(directory)).toSorted(), ['data', 'script.mjs'])
    } finally {
      await rm(directory, { recursive: true })
    }
  })

  it('ends the machine when the time has run out', async () => {
    const { child, word } = start(['--timeout', '40', '--', 'sh', '-c', 'echo begun; sleep 1000'])
    const [out, err, [status]] = await Promise.all([
      text(child.stdout!),
      text(child.stderr!),
      once(child, 'exit'),
    ])
    assert.deepEqual([status, out, machines(word)], [124, 'begun\n', []])
    assert.match(err, /did not end sh -c echo begun; sleep 1000 within \d/)
  })

  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGKILL'] as const) {
    it(`leaves no machine behind when ${signal} ends it`, async () => {
      const { child, word } = start(['--', 'sleep', '1000'])
      await until(() => machines(word).length === 1)
      child.kill(signal)
      const [, killer] = (await once(child, 'exit')) as [null, string]
      assert.equal(killer, signal)
      // Nobody is left to wait for QEMU after a SIGKILL.
      if (signal === 'SIGKILL') await until(() => machines(word).length === 0)
      assert.deepEqual(machines(word), [])
    })
  }

  it('ends like any program when nobody reads its output any more', async () => {
    const { child, word } = start(['--', 'yes'])
    child.stdin?.end()
    await once(child.stdout!, 'data')
    child.stdout?.destroy()
    const [status] = (await once(child, 'exit')) as [number]
    assert.equal(status, 141)
    await until(() => machines(word).length === 0)
  })
})
