// Where node-gyp finds the headers of Node.js.
import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'

/** Environment for node-gyp, which downloads the headers unless it gets their place; most installations of Node have them. */
export function headers() {
  const prefix = dirname(dirname(process.execPath))
  if (process.env.npm_config_nodedir) return { npm_config_nodedir: process.env.npm_config_nodedir }
  return existsSync(join(prefix, 'include/node/node_api.h')) ? { npm_config_nodedir: prefix } : {}
}
