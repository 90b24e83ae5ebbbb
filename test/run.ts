/**
 * Runs the compiled tests of folders, `node dist/test/run.js cli compat`; without any all but those of lab-kernels/. Options go to Node.
 * Node itself takes patterns of files only from version 21 on, and of a folder named test it runs every file.
 */
import { spawnSync } from 'node:child_process'
import { readdirSync } from 'node:fs'

const words = process.argv.slice(2)
const options = words.filter((word) => word.startsWith('--'))
const folders = words.filter((word) => !word.startsWith('--'))

function isWanted(file: string): boolean {
  const [folder] = file.split('/') as [string]
  return (
    file.endsWith('.test.js') && (folders.length === 0 ? folder !== 'lab-kernels' : folders.includes(folder))
  )
}

const files = readdirSync(import.meta.dirname, { recursive: true, encoding: 'utf8' }).filter(isWanted)
const missing = folders.filter((folder) => !files.some((file) => file.startsWith(`${folder}/`)))
if (missing.length > 0) throw new Error(`there are no tests in test/${missing.join(', test/')}`)
const paths = files.map((file) => `${import.meta.dirname}/${file}`)
const { status } = spawnSync(process.execPath, ['--test', ...options, ...paths], { stdio: 'inherit' })
process.exitCode = status ?? 1
