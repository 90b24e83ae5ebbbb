import { mkdirSync, statSync } from 'node:fs'
import { dirname } from 'node:path'

/**
 * Makes a directory and those above it that are missing; one that is there stays as it is. mkdirSync with `recursive` never returns
 * where a parent exists but no directory can be made in it, as in /proc (Node.js 20).
 * @param mode permissions of new directories
 * @throws the error of the file system
 */
export function makeDirectories(directory: string, mode = 0o777): void {
  try {
    makeOne(directory, mode)
  } catch (error) {
    const parent = dirname(directory)
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT' || parent === directory) throw error
    makeDirectories(parent, mode)
    makeOne(directory, mode)
  }
}

function makeOne(directory: string, mode: number): void {
  try {
    mkdirSync(directory, mode)
  } catch (error) {
    if (!isDirectory(directory)) throw error
  }
}

function isDirectory(path: string): boolean {
  try {
    return statSync(path).isDirectory()
  } catch {
    return false
  }
}
