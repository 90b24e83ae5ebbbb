// Builds the addon.
//
//   node tools/build-addon.mjs                   for this machine, into build/Release
//   node tools/build-addon.mjs --arm64           for arm64 (with Debian's cross compiler elsewhere), into prebuilds/linux-arm64
//   node tools/build-addon.mjs --sanitize        for this machine with AddressSanitizer and UBSan, into build-sanitize/build/Release
//   node tools/build-addon.mjs --sanitize-arm64  the same for arm64, into build-sanitize-arm64/build/Release
//   node tools/build-addon.mjs --threads         for this machine with ThreadSanitizer, into build-sanitize-threads/build/Release
//   node tools/build-addon.mjs --if-possible     for this machine; where that cannot be done, says so in one line and succeeds
import { spawnSync } from 'node:child_process'
import { copyFileSync, mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { headers } from './node-headers.mjs'
import { promisify } from 'node:util'
import prebuildify from 'prebuildify'
import { arm64Tools, checkArm64Compiler } from './arm64-compiler.mjs'
import { checkArm64Addon, prebuiltAddon } from './prebuilt-addon.mjs'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const file = 'kvm-arm64.node'

function run(name, command, args, options = {}) {
  const { status, signal, error } = spawnSync(command, args, { stdio: 'inherit', ...options })
  if (error) throw new Error(`cannot start ${name}: ${error.message}`)
  if (status !== 0) throw new Error(`${name} ended with ${signal ?? `status ${status}`}`)
}

function gyp(args, folder = root, env = {}, stdio = 'inherit') {
  const nodeGyp = createRequire(import.meta.url).resolve('node-gyp/bin/node-gyp.js')
  run('node-gyp', process.execPath, [nodeGyp, 'rebuild', '--loglevel=warn', ...args], {
    cwd: folder,
    stdio,
    env: { ...process.env, ...headers(), ...env },
  })
}

/** Makes a folder look like the package, so that a build there does not replace this machine's build/Release. */
function resemble(folder) {
  for (const name of ['binding.gyp', 'native', 'node_modules', 'package.json']) {
    symlinkSync(join(root, name), join(folder, name))
  }
}

function forThisMachine() {
  gyp(['-Dwarnings_as_errors=1'])
}

async function forArm64() {
  checkArm64Compiler()
  const { strip, ...compiler } = arm64Tools()
  // prebuildify passes on neither of these by an option.
  Object.assign(process.env, headers(), compiler, {
    GYP_DEFINES: 'warnings_as_errors=1',
    npm_config_loglevel: 'warn',
  })
  const folder = mkdtempSync(join(tmpdir(), 'kvm-arm64-build-'))
  try {
    resemble(folder)
    await promisify(prebuildify)({
      arch: 'arm64',
      platform: 'linux',
      napi: true,
      // The Node.js version of the headers; with N-API any version serves all.
      targets: [process.versions.node],
      cwd: folder,
      strip: true,
      stripBin: strip,
      nodeGyp: join(root, 'node_modules/.bin/node-gyp'),
    })
    const built = join(folder, 'prebuilds/linux-arm64', file)
    // Without a compiler named, node-gyp puts this machine's code into a file called arm64.
    checkArm64Addon(built)
    mkdirSync(dirname(prebuiltAddon), { recursive: true })
    copyFileSync(built, `${prebuiltAddon}.new`)
    // Renamed into place: another process may be loading the old one.
    renameSync(`${prebuiltAddon}.new`, prebuiltAddon)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

const addressAndUndefined = ['--asan=1', '--ubsan=1']

function withSanitizers(name, sanitizers, args = [], env = {}) {
  const folder = join(root, name)
  rmSync(folder, { recursive: true, force: true })
  mkdirSync(folder)
  resemble(folder)
  gyp([...sanitizers, '-Dwarnings_as_errors=1', ...args], folder, env)
}

function sanitizersForArm64() {
  checkArm64Compiler()
  withSanitizers('build-sanitize-arm64', addressAndUndefined, ['--arch=arm64'], arm64Tools())
}

function ifPossible() {
  if (process.platform !== 'linux') {
    console.error(`kvm-arm64: no native addon on ${process.platform}; the simulator works without it`)
    return
  }
  try {
    gyp([], root, {}, 'pipe')
  } catch (error) {
    console.error(
      `kvm-arm64: the native addon was not built (${error.message}); the simulator works without it, and npm run build:addon shows why`,
    )
  }
}

/** @type {Map<string | undefined, () => void | Promise<void>>} */
const builds = new Map([
  [undefined, forThisMachine],
  ['--arm64', forArm64],
  ['--sanitize', () => withSanitizers('build-sanitize', addressAndUndefined)],
  ['--threads', () => withSanitizers('build-sanitize-threads', ['--tsan=1'])],
  ['--sanitize-arm64', sanitizersForArm64],
  ['--if-possible', ifPossible],
])
const build = builds.get(process.argv[2])
if (build === undefined) {
  console.error(`usage: node tools/build-addon.mjs [${[...builds.keys()].filter(Boolean).join(' | ')}]`)
  process.exitCode = 2
} else {
  try {
    await build()
  } catch (error) {
    console.error(`kvm-arm64: ${error.message}`)
    process.exitCode = 1
  }
}
