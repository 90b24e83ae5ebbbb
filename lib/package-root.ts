/**
 * The package's top folder: what is read at run time and is not JavaScript (prebuilds, hosts, schemas) is found from here. This file
 * is in `lib/` when tests run on the sources, and otherwise one folder deeper, in `dist/lib/` or within a file of `dist/bundle/`.
 */
export const packageRoot: URL = new URL(import.meta.url.endsWith('.ts') ? '../' : '../../', import.meta.url)
