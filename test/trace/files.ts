import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** A file with this content, gone when it is disposed of. */
export function temporaryFile(content: string | Buffer, name = 'a.ndjson'): { path: string } & Disposable {
  const folder = mkdtempSync(join(tmpdir(), 'kvm-arm64-trace-'))
  const path = join(folder, name)
  writeFileSync(path, content)
  return { path, [Symbol.dispose]: () => rmSync(folder, { recursive: true }) }
}

export const HEAD = '{"trace":"kvm-arm64","version":1,"host":"6.12.0-test"}\n'
