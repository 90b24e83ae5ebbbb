import { execFileSync } from 'node:child_process'
import { closeSync, mkdirSync, openSync } from 'node:fs'
import { dirname } from 'node:path'
import { fileURLToPath } from 'node:url'
import { packageRoot } from '../../lib/package-root.js'

/**
 * Where there is no KVM of any kind, builds `fake-kvm.c`, to be preloaded, and returns the library; undefined where there is KVM, and
 * on arm64, where the addon makes its system calls itself.
 */
export function fakeKvm(): string | undefined {
  if (process.arch === 'arm64' || canOpenKvm()) return undefined
  const library = fileURLToPath(new URL('test-results/fake-kvm.so', packageRoot))
  const source = fileURLToPath(new URL('test/native/fake-kvm.c', packageRoot))
  mkdirSync(dirname(library), { recursive: true })
  execFileSync('gcc', ['-O2', '-shared', '-fPIC', '-o', library, source])
  return library
}

function canOpenKvm(): boolean {
  try {
    closeSync(openSync('/dev/kvm', 'r+'))
    return true
  } catch {
    return false
  }
}
