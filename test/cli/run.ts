import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { packageRoot } from '../../lib/package-root.js'

export const main = fileURLToPath(new URL('dist/bundle/main.js', packageRoot))

export interface Outcome {
  status: number | null
  out: string
  error: string
}

interface How {
  /** Options of Node itself. */
  node?: readonly string[]
  env?: Record<string, string>
  cwd?: string
  uid?: number
  /** Standard input. */
  input?: string
}

/** Runs the command with pipes for its output. */
export function kvmArm64(args: readonly string[], { node = [], env = {}, ...how }: How = {}): Outcome {
  const { status, stdout, stderr } = spawnSync(process.execPath, [...node, main, ...args], {
    env: { ...plainEnvironment(), ...env },
    encoding: 'utf8',
    maxBuffer: 64 * 1024 * 1024,
    ...how,
  })
  return { status, out: stdout, error: stderr }
}

/** A line of shell in which `$kvm_arm64` is the command. */
export function shell(line: string, env: Record<string, string> = {}): Outcome {
  const { status, stdout, stderr } = spawnSync('sh', ['-c', line], {
    env: { ...plainEnvironment(), ...env, kvm_arm64: `${process.execPath} ${main}` },
    encoding: 'utf8',
  })
  return { status, out: stdout, error: stderr }
}

/** Node options that make a machine look like one without arm64 KVM, whatever it is. */
export const onX64 = ['--import', 'data:text/javascript,Object.defineProperty(process,"arch",{value:"x64"})']

/** Without what would change what the command prints; in CI Node takes no terminal for one with colours. */
function plainEnvironment(): NodeJS.ProcessEnv {
  const environment = { ...process.env }
  for (const name of ['NO_COLOR', 'FORCE_COLOR', 'CI', 'NODE_OPTIONS', 'KVM_ARM64_DEBUG'])
    delete environment[name]
  return { ...environment, TERM: 'xterm-256color' }
}
