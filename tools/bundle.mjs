/** Bundles what tsc made of lib/: of many small files Node would need longer to load than the command to run. */
import { chmodSync, readdirSync, rmSync } from 'node:fs'
import { build } from 'esbuild'

rmSync('dist/bundle', { recursive: true, force: true })
await build({
  entryPoints: [
    { out: 'index', in: 'dist/lib/index.js' },
    // One for each subpath export.
    ...readdirSync('lib/doors').map((file) => {
      const door = file.replace('.ts', '')
      return { out: door, in: `dist/lib/doors/${door}.js` }
    }),
    { out: 'main', in: 'dist/lib/cli/main.js' },
    // Read as text, when a page is written.
    { out: 'fleet-page', in: 'lib/cli/fleet-page/page.js' },
    { out: 'fleet-page', in: 'lib/cli/fleet-page/page.css' },
  ],
  outdir: 'dist/bundle',
  bundle: true,
  splitting: true,
  format: 'esm',
  platform: 'node',
  packages: 'external',
  logLevel: 'warning',
})
chmodSync('dist/bundle/main.js', 0o755)
