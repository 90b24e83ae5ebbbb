/** The commands of README.md and docs/, with the files they name. */
import { copyFileSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { packageRoot } from '../../lib/package-root.js'

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

/** Whether a command boots a lab. */
export function bootsLab(command: string): boolean {
  return / lab (run|setup) /.test(`${command} `) || / --require lab\b/.test(command)
}

/** A directory in which every file that the pages' commands read has been made, by `kvmArm64(args)`. */
export function makeFiles(directory: string, kvmArm64: (args: string[]) => void): void {
  const report = (file: string, host: string) =>
    kvmArm64(['probe', '--simulate', host, '-o', join(directory, file)])
  report('host.json', 'linux-6.12-neoverse-n1')
  report('a.json', 'linux-7.2-neoverse-n1')
  report('b.json', 'linux-6.12-neoverse-n1')
  report('c.json', 'linux-6.1-neoverse-n1')
  mkdirSync(join(directory, 'reports'))
  report('reports/node-1.json', 'linux-6.12-neoverse-n1')
  report('reports/node-2.json', 'linux-6.1-neoverse-n1')
  const onOneLine = (file: string) => JSON.stringify(JSON.parse(readFileSync(join(directory, file), 'utf8')))
  writeFileSync(join(directory, 'reports.ndjson'), `${onOneLine('a.json')}\n${onOneLine('c.json')}\n`)
  writeFileSync(join(directory, 'hosts'), 'linux-6.12-neoverse-n1\nlinux-6.1-neoverse-n1\n')
  copyFileSync(
    fileURLToPath(
      new URL('test/interchange/graviton/fingerprint_ARM_NEOVERSE_N1_6.1host.json', packageRoot),
    ),
    join(directory, 'fingerprint.json'),
  )
  mkdirSync(join(directory, 'docs/examples'), { recursive: true })
  copyFileSync(
    fileURLToPath(new URL('docs/examples/recorded-script.mjs', packageRoot)),
    join(directory, 'docs/examples/recorded-script.mjs'),
  )
  writeFileSync(join(directory, 'script.mjs'), "console.log('a script ran')\n")
}
