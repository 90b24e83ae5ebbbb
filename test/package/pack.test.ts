import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterAll, beforeAll, describe, test } from 'vitest'
import { onX64 } from '../cli/run.js'
import { manifest, pack, root, schemas } from './pack.js'

describe('the packed package', () => {
  const folder = mkdtempSync(join(tmpdir(), 'kvm-arm64-package-'))
  const installed = join(folder, 'node_modules', 'kvm-arm64')
  let files: string[] = []
  let log = ''
  afterAll(() => rmSync(folder, { recursive: true }))

  beforeAll(() => {
    const packed = pack(folder)
    files = packed.files
    writeFileSync(join(folder, 'package.json'), '{ "private": true }')
    // Scripts of packages write to the terminal here, where there are any.
    const install = ['--foreground-scripts', '--prefer-offline', '--no-audit', '--no-fund']
    log = run('npm', ['install', ...install, packed.file])
    log += run('npm', ['ci', ...install])
  })

  function run(command: string, args: readonly string[]): string {
    return execFileSync(command, args, { cwd: folder, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] })
  }

  function node(script: string, options: readonly string[] = []): string {
    return run(process.execPath, [...options, '--input-type=module', '-e', script]).trim()
  }

  /** The code of the error that opening real KVM throws. */
  function openingKvm(options: readonly string[]): string {
    return node(
      "import { openKvm } from 'kvm-arm64'; try { openKvm().close(); console.log('opened') } catch (error) { console.log(error.code) }",
      options,
    )
  }

  test('holds what is needed at run time, and nothing else', () => {
    for (const needed of [
      'README.md',
      'CHANGELOG.md',
      'LICENSE',
      'package.json',
      'dist/bundle/index.js',
      'dist/lib/index.d.ts',
      'dist/bundle/main.js',
      'dist/bundle/predict-worker.js',
      'dist/man/kvm-arm64.1',
      'dist/bundle/fleet-page.js',
      'dist/bundle/fleet-page.css',
      ...schemas.map(([, file]) => file),
      'lib/hosts/recorded/linux-6.12-neoverse-n1.json',
      'lib/cli/collection/ansible/collect.yml',
    ]) {
      assert.ok(files.includes(needed), `${needed} is missing`)
    }
    const known =
      /^(README\.md|CHANGELOG\.md|LICENSE|package\.json|dist\/bundle\/.*\.(js|css)|dist\/man\/kvm-arm64\.1|dist\/lib\/.*\.d\.ts|lib\/.*\.schema\.json|lib\/hosts\/recorded\/[^/]*\.json|lib\/cli\/collection\/.*|prebuilds\/.*\.node)$/
    assert.deepEqual(
      files.filter((file) => !known.test(file)),
      [],
    )
  })

  test('runs no script and compiles nothing when installed, from a lock file neither', () => {
    const { scripts } = JSON.parse(readFileSync(join(installed, 'package.json'), 'utf8')) as {
      scripts: Record<string, string>
    }
    for (const name of ['preinstall', 'install', 'postinstall']) assert.equal(scripts[name], undefined)
    assert.ok(!existsSync(join(installed, 'build')))
    assert.doesNotMatch(log, /gyp/)
  })

  test('can be imported, and required', () => {
    assert.match(node("console.log(Object.keys(await import('kvm-arm64')).join())"), /openKvm.*simulator/)
    const required =
      "console.log(typeof require('kvm-arm64').openKvm, require('kvm-arm64/package.json').version)"
    assert.equal(run(process.execPath, ['-e', required]), `function ${manifest.version}\n`)
  })

  for (const [name] of schemas) {
    test(`exports ${name}`, () => {
      const script = `console.log(require('kvm-arm64/${name}').title)`
      const [format] = name.split('.')
      const version = format === 'report' || format === 'state' ? 2 : 1
      assert.equal(run(process.execPath, ['-e', script]), `kvm-arm64 ${format}, version ${version}\n`)
    })
  }

  test('simulates a host', () => {
    const script = `
      import { openKvm, simulator } from 'kvm-arm64'
      const kvm = openKvm(simulator('linux-6.12-neoverse-n1'))
      console.log(JSON.stringify(kvm.createVm().services.supported))
      kvm.close()`
    assert.match(node(script), /"vendorHyp":\["features","ptp"\]/)
  })

  test('answers with a code and a remedy where there is no arm64 KVM to open', () => {
    assert.equal(openingKvm(onX64), 'ERR_KVM_WRONG_ARCHITECTURE')
    const macOs =
      'for (const [key, value] of [["arch", "arm64"], ["platform", "darwin"]]) Object.defineProperty(process, key, { value })'
    assert.equal(openingKvm(['--import', `data:text/javascript,${macOs}`]), 'ERR_KVM_UNSUPPORTED_PLATFORM')
  })

  test('says that the addon is missing where it has none for the machine', () => {
    const unknownMachine = 'Object.defineProperty(process, "arch", { value: "arm64" })'
    rmSync(join(installed, 'prebuilds'), { recursive: true, force: true })
    assert.equal(openingKvm(['--import', `data:text/javascript,${unknownMachine}`]), 'ERR_KVM_ADDON_MISSING')
  })

  test('offers its command', () => {
    assert.match(run('npx', ['--no', 'kvm-arm64', 'hosts']), /linux-6\.12-neoverse-n1/)
  })

  test('has types a strict program compiles against, its own declarations checked too', () => {
    writeFileSync(
      join(folder, 'program.ts'),
      `import { type Exit, openKvm, probe, type Report, simulator } from 'kvm-arm64'
      using kvm = openKvm(simulator('linux-6.12-neoverse-n1'))
      using vm = kvm.createVm()
      const vcpu = vm.createVcpu(0, { features: ['psci-0.2'] })
      export const value: bigint = vcpu.registers.get('KVM_REG_ARM_STD_BMAP')
      export const report: Report = probe(kvm)
      export const reason = (exit: Exit): string => exit.reason
      // @ts-expect-error -- there is no such feature
      vm.createVcpu(1, { features: ['wings'] })\n`,
    )
    const options = {
      module: 'nodenext',
      target: 'es2023',
      lib: ['es2023', 'esnext.disposable'],
      strict: true,
      exactOptionalPropertyTypes: true,
      skipLibCheck: false,
      noEmit: true,
      types: ['node'],
      typeRoots: [join(root, 'node_modules', '@types')],
    }
    writeFileSync(
      join(folder, 'tsconfig.json'),
      JSON.stringify({ compilerOptions: options, files: ['program.ts'] }),
    )
    run(process.execPath, [join(root, 'node_modules', 'typescript', 'bin', 'tsc'), '-p', folder])
  })
})

test('publint and attw have nothing to say about any door', () => {
  execFileSync('npx', ['--no', 'node', 'dist/tools/check-package.js'], { cwd: root, stdio: 'pipe' })
})

describe('packing is refused', () => {
  const folder = mkdtempSync(join(tmpdir(), 'kvm-arm64-prepack-'))
  afterAll(() => rmSync(folder, { recursive: true }))
  const addon = join(folder, 'prebuilds/linux-arm64/kvm-arm64.node')

  /** prepack in a folder with the tools alone, on a machine without compilers. */
  function prepack(): { status: number | null; stderr: string } {
    cpSync(join(root, 'tools'), join(folder, 'tools'), { recursive: true })
    const options = { encoding: 'utf8', env: { PATH: '' } } as const
    return spawnSync(process.execPath, [join(folder, 'tools/prepack.mjs')], options)
  }

  test('without an addon for arm64, saying what to install', () => {
    const { status, stderr } = prepack()
    assert.equal(status, 1)
    assert.match(stderr, /^kvm-arm64: not packed: .*kvm-arm64\.node does not exist; install .*g\+\+/)
  })

  test('with one for another machine', () => {
    mkdirSync(dirname(addon), { recursive: true })
    const bytes = readFileSync(join(root, 'prebuilds/linux-arm64/kvm-arm64.node'))
    const x64 = 62
    bytes.writeUInt16LE(x64, 18)
    writeFileSync(addon, bytes)
    const { status, stderr } = prepack()
    assert.equal(status, 1)
    assert.match(stderr, /kvm-arm64\.node is no arm64 ELF shared object/)
  })

  test('but not with the right one', () => {
    cpSync(join(root, 'prebuilds/linux-arm64/kvm-arm64.node'), addon)
    const { status, stderr } = prepack()
    assert.deepEqual([status, stderr], [0, ''])
  })
})

test('without a compiler for arm64 the addon is not built for another machine, and what to install is named', () => {
  const builder = join(root, 'tools/build-addon.mjs')
  for (const build of ['--arm64', '--sanitize-arm64']) {
    const { status, stderr } = spawnSync(process.execPath, [builder, build], {
      encoding: 'utf8',
      env: { PATH: '' },
    })
    assert.equal(status, 1)
    assert.match(stderr, /^kvm-arm64: nothing here compiles for arm64; install .*g\+\+/)
  }
})
