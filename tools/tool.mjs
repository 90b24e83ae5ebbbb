/** Runs one of the programs beside this file, `npm run tool NAME [ARGUMENT…]`, with what the lab needs built. */
const programs = [
  'boot-times',
  'elections',
  'fleet-size',
  'fuzz',
  'journey',
  'linux-boots',
  'linux-moves',
  'outages',
  'qemu-moves',
  'record-hosts',
  'runtimes',
]

const [name, ...args] = process.argv.slice(2)
if (programs.includes(name)) {
  const { href, pathname } = new URL(`../dist/tools/${name}.js`, import.meta.url)
  process.argv.splice(1, Infinity, pathname, ...args)
  await import(href)
} else {
  console.error(`usage: npm run tool NAME [ARGUMENT…], where NAME is ${programs.join(', ')}`)
  process.exitCode = 2
}
