/**
 * Bundles lib/ into dist/bundle/, one file for each entry point: Node would need longer to load many small files than to run the
 * command. The build runs this file as a program; tests call it, because they start the command as it is shipped.
 */
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { basename, dirname } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'

const root = dirname(dirname(fileURLToPath(import.meta.url)))

export async function bundle() {
  const { outputFiles } = await build({
    absWorkingDir: root,
    entryPoints: [
      { out: 'index', in: 'lib/index.ts' },
      // One for each subpath export.
      ...readdirSync(`${root}/lib/doors`).map((file) => {
        const door = file.replace('.ts', '')
        return { out: door, in: `lib/doors/${door}.ts` }
      }),
      { out: 'main', in: 'lib/cli/main.ts' },
      // Read as text, when a page is written.
      { out: 'fleet-page', in: 'lib/cli/fleet-page/page.js' },
      { out: 'fleet-page', in: 'lib/cli/fleet-page/page.css' },
    ],
    outdir: 'dist/bundle',
    bundle: true,
    splitting: true,
    format: 'esm',
    platform: 'node',
    // The oldest Node in package.json; it has no `using`.
    target: 'node20.19',
    packages: 'external',
    logLevel: 'warning',
    write: false,
  })
  // Unchanged files stay as they are: a process may be running them.
  const folder = `${root}/dist/bundle`
  mkdirSync(folder, { recursive: true })
  for (const { path, contents } of outputFiles) {
    if (!existsSync(path) || !readFileSync(path).equals(contents)) writeFileSync(path, contents)
  }
  const made = new Set(outputFiles.map(({ path }) => basename(path)))
  for (const file of readdirSync(folder))
    if (!made.has(file)) rmSync(`${folder}/${file}`, { recursive: true })
  chmodSync(`${folder}/main.js`, 0o755)
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await bundle()
