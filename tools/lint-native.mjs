// Checks native/ with clang-format and clang-tidy: `npm run lint`. The compiler's arguments are those of binding.gyp.
//
//   node tools/lint-native.mjs            fails on a difference in format and on a finding
//   node tools/lint-native.mjs --install  installs the two programs with apt where they are missing
import { spawn, spawnSync } from 'node:child_process'
import { mkdtempSync, readdirSync, rmSync, symlinkSync } from 'node:fs'
import { createRequire } from 'node:module'
import { availableParallelism, tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { headers } from './node-headers.mjs'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const programs = ['clang-format', 'clang-tidy']
const installation = `apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends ${programs.join(' ')}`

function missing() {
  return programs.filter((program) => spawnSync(program, ['--version']).status !== 0)
}

/** Resolves with the command's output; rejects with it if the command fails. */
function run(command, args, options = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { cwd: root, stdio: ['ignore', 'pipe', 'pipe'], ...options })
    let [found, noise] = ['', '']
    child.stdout.on('data', (chunk) => (found += chunk))
    child.stderr.on('data', (chunk) => (noise += chunk))
    child.on('error', reject).on('close', (status) => {
      if (status === 0) resolve(found)
      else reject(new Error(`${command} ${args.at(-1)}:\n${found || noise}`))
    })
  })
}

/** clang-tidy on each file with the arguments that node-gyp would give the compiler. */
async function tidy(files) {
  const folder = mkdtempSync(join(tmpdir(), 'kvm-arm64-tidy-'))
  try {
    // Aside: this machine's build/ stays as it is.
    for (const name of ['binding.gyp', 'native', 'node_modules', 'package.json', '.clang-tidy']) {
      symlinkSync(join(root, name), join(folder, name))
    }
    const nodeGyp = createRequire(import.meta.url).resolve('node-gyp/bin/node-gyp.js')
    await run(process.execPath, [nodeGyp, 'configure', '--', '-f', 'compile_commands_json'], {
      cwd: folder,
      env: { ...process.env, ...headers() },
    })
    const waiting = files.map((file) => join(folder, file))
    const failures = []
    const worker = async () => {
      for (let file = waiting.pop(); file !== undefined; file = waiting.pop()) {
        await run('clang-tidy', ['-p', 'build/Release', '--quiet', file], { cwd: folder }).catch((error) =>
          failures.push(error.message.replaceAll(`${folder}/`, '')),
        )
      }
    }
    await Promise.all(Array.from({ length: availableParallelism() }, worker))
    if (failures.length > 0) throw new Error(failures.join('\n'))
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

async function lint() {
  const lacking = missing()
  if (lacking.length > 0) throw new Error(`no ${lacking.join(' and no ')} here. Install: ${installation}`)
  const files = readdirSync(join(root, 'native')).map((name) => join('native', name))
  await run('clang-format', ['--dry-run', '--Werror', ...files])
  await tidy(files.filter((file) => file.endsWith('.cc')))
}

function install() {
  if (missing().length === 0) return
  const command = process.getuid() === 0 ? ['sh', '-c', installation] : ['sudo', 'sh', '-c', installation]
  const { status } = spawnSync(command[0], command.slice(1), { stdio: ['ignore', 2, 2] })
  if (status !== 0) throw new Error(`the installation failed: ${command.join(' ')}`)
}

try {
  await (process.argv[2] === '--install' ? install() : lint())
} catch (error) {
  console.error(`lint-native: ${error.message}`)
  process.exitCode = 1
}
