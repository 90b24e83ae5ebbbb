/** The package's top folder: what is read at run time and is not JavaScript (prebuilds, hosts, schemas) is found from here. */
export const packageRoot: URL = new URL('../../', import.meta.url)
