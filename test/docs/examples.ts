/** The scripts of docs/examples/, and what their comments promise that they print. */
import { readdirSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { packageRoot } from '../../lib/package-root.js'

interface Example {
  name: string
  path: string
  /** The comment behind each `console.log`, in order. */
  promised: string[]
  /** Whether the word `real` makes it use this machine's KVM. */
  takesReal: boolean
  usesLab: boolean
  /** Whether it boots the kernel that its argument names, on this machine's KVM. */
  bootsKernel: boolean
}

const folder = new URL('docs/examples/', packageRoot)

/** What the comments of a script promise that it prints. */
export function promisedBy(script: string): string[] {
  return [...script.matchAll(/^.*console\.log.*\/\/ (.*)$/gm)].map((match) => match[1]!)
}

export const examples: readonly Example[] = readdirSync(folder).map((name) => {
  const script = readFileSync(new URL(name, folder), 'utf8')
  return {
    name,
    path: fileURLToPath(new URL(name, folder)),
    promised: promisedBy(script),
    takesReal: script.includes("process.argv[2] === 'real'"),
    usesLab: script.includes("'kvm-arm64/lab'"),
    bootsKernel: script.includes("'kvm-arm64/machine'"),
  }
})
