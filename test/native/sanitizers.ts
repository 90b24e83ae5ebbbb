/**
 * Runs the addon's tests with AddressSanitizer and UBSan: here, with what `tools/build-addon.mjs --sanitize` built, or with `--lab`
 * in a real arm64 kernel, with what `--sanitize-arm64` built. With `--threads`, runs `stress.ts` with ThreadSanitizer and what
 * `--threads` built. The process that loads such an addon has to have the sanitizers'
 * libraries from the start, since the executable is Node's own.
 */
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdirSync, readdirSync } from 'node:fs'
import { basename, dirname } from 'node:path'
import { fileURLToPath } from 'node:url'
import { bootLab } from '../../lib/lab/index.js'
import { packageRoot } from '../../lib/package-root.js'
import { fakeKvm } from './fake-kvm.js'

const suppressions = 'test/native/leaks-not-ours.txt'

function libraries(compiler: string, names: readonly string[] = ['libasan.so', 'libubsan.so']): string[] {
  return names.map((name) =>
    execFileSync(compiler, [`-print-file-name=${name}`], { encoding: 'utf8' }).trim(),
  )
}

/** `build` is the folder in which node-gyp-build is to look instead of the package's own. */
function environment(build: string, preloaded: readonly string[], leaks: string): Record<string, string> {
  return {
    KVM_ARM64_PREBUILD: build,
    LD_PRELOAD: preloaded.join(':'),
    ASAN_OPTIONS: 'detect_leaks=1',
    LSAN_OPTIONS: `suppressions=${leaks}:print_suppressions=0`,
    UBSAN_OPTIONS: 'print_stacktrace=1:halt_on_error=1',
  }
}

function here(): number {
  const tests = readdirSync(new URL('.', import.meta.url))
    .filter((name) => name.endsWith('.test.js'))
    .map((name) => fileURLToPath(new URL(name, import.meta.url)))
  const build = fileURLToPath(new URL('build-sanitize/', packageRoot))
  const leaks = fileURLToPath(new URL(suppressions, packageRoot))
  const junit = fileURLToPath(new URL('test-results/sanitizers.xml', packageRoot))
  mkdirSync(dirname(junit), { recursive: true })
  const [terminal, file] = [
    ['--test-reporter=spec', '--test-reporter-destination=stdout'],
    ['--test-reporter=junit', `--test-reporter-destination=${junit}`],
  ] as const
  const { status } = spawnSync(process.execPath, ['--test', ...terminal, ...file, ...tests], {
    stdio: 'inherit',
    env: { ...process.env, ...environment(build, [...libraries('gcc'), ...fake()], leaks) },
  })
  return status ?? 1
}

async function inLab(): Promise<number> {
  process.chdir(fileURLToPath(packageRoot))
  const preloaded = libraries(process.arch === 'arm64' ? 'gcc' : 'aarch64-linux-gnu-gcc')
  const build = 'build-sanitize-arm64'
  const lab = await bootLab({
    memory: 3072,
    copy: ['dist', 'package.json', suppressions, `${build}/build/Release/kvm-arm64.node`, ...preloaded],
  })
  try {
    const inside = environment(
      `/lab/${build}`,
      preloaded.map((file) => `/lab/${basename(file)}`),
      `/lab/${suppressions}`,
    )
    const settings = Object.entries(inside).map(([name, value]) => `${name}=${value}`)
    const { status } = await lab.run(['env', ...settings, 'node', 'dist/test/native/kvm/suite.js'], {
      stdout: process.stdout,
      stderr: process.stderr,
    })
    return status
  } finally {
    await lab.close()
  }
}

/** Where there is no KVM of any kind, `fake-kvm.c` stands in for it. */
function fake(): string[] {
  const library = fakeKvm()
  return library === undefined ? [] : [library]
}

function threads(): number {
  const program = fileURLToPath(new URL('stress.js', import.meta.url))
  const { status, signal, stdout } = spawnSync(process.execPath, [program], {
    stdio: ['ignore', 'pipe', 'inherit'],
    encoding: 'utf8',
    timeout: 300_000,
    env: {
      ...process.env,
      KVM_ARM64_PREBUILD: fileURLToPath(new URL('build-sanitize-threads/', packageRoot)),
      LD_PRELOAD: [...fake(), ...libraries('gcc', ['libtsan.so'])].join(':'),
      // Node's own code is not instrumented, and what it does is none of ours.
      TSAN_OPTIONS: 'ignore_noninstrumented_modules=1:exitcode=66',
    },
  })
  const isClean = status === 0 && stdout === 'raced\n'
  console.log(isClean ? 'ThreadSanitizer: no race' : `ThreadSanitizer: ${signal ?? `status ${status}`}`)
  return isClean ? 0 : 1
}

const ways: Record<string, () => number | Promise<number>> = { '--lab': inLab, '--threads': threads }
process.exitCode = await (ways[process.argv[2] ?? ''] ?? here)()
