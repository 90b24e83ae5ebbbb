import { writeFileAtomically } from '../report/write.js'
import { CommandError, exitStatus } from './exit.js'
import { note } from './output.js'

/** To a file, whole or not at all, or to stdout where none is named. */
export function writeText(text: string, file: string | undefined): void {
  if (file === undefined) {
    process.stdout.write(text)
    return
  }
  try {
    writeFileAtomically(file, text)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    throw new CommandError(`${file}: cannot be written (${code})`, exitStatus.usage)
  }
  note(`wrote ${file}`)
}
