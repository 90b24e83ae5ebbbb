/**
 * Bundles lib/ into dist/bundle/, one file for each entry point and few that they share: Node would need longer to load many small
 * files than to run the command. The build runs this file as a program; tests call it, because they start the command as it is shipped.
 */
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build } from 'rolldown'

const root = dirname(dirname(fileURLToPath(import.meta.url)))

/** What several entry points share, each in one file with all that it imports. Node needs about a millisecond for each file. */
const shared = [
  // All that `--help` needs, and what the gate of a fleet shares with larger files.
  {
    name: 'base',
    test: /\/lib\/(package-root|migration\/obstacle|documents\/(printable|write|directory|format-error|text|json|foreign|input))\.ts$|usingCtx/,
  },
  { name: 'registers', test: /\/lib\/(registers|hypercalls)\// },
  // Without the digest, for which Node loads its cryptography, and which few need.
  { name: 'library', test: /\/lib\/(kvm|kernel|report(?!\/digest)|documents|probe|simulator|hosts)\// },
]

/** Packages that the bundle holds, each with its licence: as packages of their own Node would read all of them. */
const bundled = [
  ['valibot', 'valibot/LICENSE.md'],
  ['hyparquet-writer', 'hyparquet-writer/LICENSE'],
  // What the writer shares with the reader, under the same licence.
  ['hyparquet', 'hyparquet-writer/LICENSE'],
].map(([name, file]) => ({
  name,
  licence: `/*! ${name}: ${readFileSync(`${root}/node_modules/${file}`, 'utf8')}*/`,
}))

export async function bundle() {
  const { output } = await build({
    cwd: root,
    input: {
      index: 'lib/index.ts',
      // One for each subpath export.
      ...Object.fromEntries(
        readdirSync(`${root}/lib/doors`).map((file) => [file.replace('.ts', ''), `lib/doors/${file}`]),
      ),
      main: 'lib/cli/main.ts',
      // A thread starts with a file of its own.
      'predict-worker': 'lib/fleet/predict-worker.ts',
    },
    external: ['cli-table3', 'commander', 'node-gyp-build'],
    platform: 'node',
    // The oldest Node in package.json; it has no `using`.
    transform: { target: 'node20.19' },
    output: {
      comments: { legal: true, jsdoc: false },
      banner: ({ moduleIds }) =>
        bundled
          .filter(({ name }) => moduleIds.some((id) => id.includes(`/node_modules/${name}/`)))
          .map(({ licence }) => licence)
          .join('\n'),
      codeSplitting: { groups: shared },
    },
    write: false,
  })
  const files = new Map(output.map((made) => [made.fileName, made.code]))
  // Read as text, when a page is written.
  for (const [kind, text] of await pageParts()) files.set(`fleet-page.${kind}`, text)
  const folder = `${root}/dist/bundle`
  mkdirSync(folder, { recursive: true })
  // Unchanged files stay as they are: a process may be running them.
  for (const [name, text] of files) {
    const path = `${folder}/${name}`
    if (!existsSync(path) || readFileSync(path, 'utf8') !== text) writeFileSync(path, text)
  }
  for (const file of readdirSync(folder))
    if (!files.has(file)) rmSync(`${folder}/${file}`, { recursive: true })
  chmodSync(`${folder}/main.js`, 0o755)
}

/** The script and the style of the pages that commands write. */
async function pageParts() {
  const { output } = await build({
    cwd: root,
    input: 'lib/cli/fleet-page/browser/main.ts',
    platform: 'browser',
    transform: { target: 'es2023' },
    output: { minify: true },
    write: false,
  })
  return [
    ['js', output[0].code],
    ['css', readFileSync(`${root}/lib/cli/fleet-page/page.css`, 'utf8')],
  ]
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await bundle()
