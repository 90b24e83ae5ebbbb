/** The commands of README.md and docs/, with the files they name. */
import { copyFileSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { packageRoot } from '../../lib/package-root.js'
import { kernelImage } from '../machine/images.js'

const pages = ['README.md', ...readdirSync(new URL('docs/', packageRoot)).map((file) => `docs/${file}`)]
  .filter((file) => file.endsWith('.md'))
  .map((file) => ({ file, text: readFileSync(new URL(file, packageRoot), 'utf8') }))

/** The content of all code blocks in a language. */
export function blocks(language: string): string[] {
  const block = new RegExp(`^\`\`\`${language}\n([^]*?)^\`\`\`$`, 'gm')
  return pages.flatMap(({ text }) => [...text.matchAll(block)].map((match) => match[1]!))
}

export { pages }

/** Every line of a shell block that calls the command, without its comment. */
export const commands: readonly string[] = [
  ...new Set(
    [...blocks('sh'), ...blocks('console').map((text) => text.replaceAll(/^(?!\$).*\n/gm, ''))]
      .flatMap((text) => text.split('\n'))
      .map((line) => line.replace(/^\$ /, '').replace(/ +# .*/, ''))
      .filter((line) => line.includes('npx kvm-arm64 ')),
  ),
]

/** Whether a command needs the lab on this machine. */
export function usesLab(command: string): boolean {
  return /kvm-arm64 lab |--require lab/.test(command)
}

/** Whether a command asks the KVM of the machine it runs on. */
export function asksKvm(command: string): boolean {
  if (usesLab(command) || command.includes('--simulate')) return false
  return /kvm-arm64 (?:census|apply|capture|conformance|probe -o|boot)|--live/.test(command)
}

/** Fills a directory with every file that the pages' commands read, made by `kvmArm64`. */
export function makeFiles(directory: string, kvmArm64: (args: string[]) => void): void {
  const at = (file: string) => join(directory, file)
  for (const folder of ['reports', 'docs/examples']) mkdirSync(at(folder), { recursive: true })
  const reports = {
    'host.json': 'linux-6.12-neoverse-n1',
    'a.json': 'linux-7.2-neoverse-n1',
    'b.json': 'linux-6.12-neoverse-n1',
    'c.json': 'linux-6.1-neoverse-n1',
    'reports/node-1.json': 'linux-6.12-neoverse-n1',
  }
  for (const [file, host] of Object.entries(reports)) kvmArm64(['probe', '--simulate', host, '-o', at(file)])
  kvmArm64(['capture', '--simulate', 'linux-6.12-neoverse-n1', '--psci', '1.0', '-o', at('vm.json')])
  kvmArm64(['baseline', 'linux-6.12-neoverse-n1', 'linux-6.12-max', '-o', at('fleet.json')])
  const onOneLine = (file: string) => JSON.stringify(JSON.parse(readFileSync(at(file), 'utf8')))
  writeFileSync(at('reports.ndjson'), `${onOneLine('a.json')}\n${onOneLine('c.json')}\n`)
  const complaint =
    'Could not set register system register op0:3 op1:0 crn:0 crm:5 op2:0 to 10305408 (is 10305406)'
  writeFileSync(at('qemu.log'), `qemu-system-aarch64: ${complaint}\n`)
  writeFileSync(at('hosts'), 'linux-6.12-neoverse-n1\nlinux-6.1-neoverse-n1\n')
  writeFileSync(at('Image'), kernelImage())
  writeFileSync(at('initrd.cpio'), '')
  writeFileSync(at('script.mjs'), "console.log('a script ran')\n")
  const fingerprint = 'test/interchange/graviton/fingerprint_ARM_NEOVERSE_N1_6.1host.json'
  copyFileSync(fileURLToPath(new URL(fingerprint, packageRoot)), at('fingerprint.json'))
  const script = 'docs/examples/recorded-script.mjs'
  copyFileSync(fileURLToPath(new URL(script, packageRoot)), at(script))
}
