/**
 * Runs this folder's tests with the addon that `native/build.mjs --sanitize` built. The process that loads it has to have the
 * sanitizers' libraries from the start, since the executable is Node's own.
 */
import { execFileSync, spawnSync } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { packageRoot } from '../../lib/package-root.js'

const libraries = ['libasan.so', 'libubsan.so'].map((name) =>
  execFileSync('gcc', [`-print-file-name=${name}`], { encoding: 'utf8' }).trim(),
)
const tests = readdirSync(new URL('.', import.meta.url))
  .filter((name) => name.endsWith('.test.js'))
  .map((name) => fileURLToPath(new URL(name, import.meta.url)))

const { status, signal } = spawnSync(process.execPath, ['--test', ...tests], {
  stdio: 'inherit',
  env: {
    ...process.env,
    // Where node-gyp-build looks instead of this package's own build.
    KVM_ARM64_PREBUILD: fileURLToPath(new URL('build-sanitize/', packageRoot)),
    LD_PRELOAD: libraries.join(':'),
    ASAN_OPTIONS: 'detect_leaks=1',
    LSAN_OPTIONS: `suppressions=${fileURLToPath(new URL('test/native/leaks-not-ours.txt', packageRoot))}:print_suppressions=0`,
    UBSAN_OPTIONS: 'print_stacktrace=1:halt_on_error=1',
  },
})
process.exitCode = signal === null ? (status ?? 1) : 1
