/** The addon that the package contains. */
import { existsSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

export const prebuiltAddon = fileURLToPath(
  new URL('../prebuilds/linux-arm64/kvm-arm64.node', import.meta.url),
)

/** Throws unless the file is an ELF shared object for arm64. */
export function checkArm64Addon(file) {
  if (!existsSync(file)) throw new Error(`${file} does not exist`)
  const bytes = readFileSync(file)
  const elf64LittleEndian = Buffer.from([0x7f, 0x45, 0x4c, 0x46, 2, 1])
  const [sharedObject, aarch64] = [3, 183]
  if (
    bytes.length < 64 ||
    !bytes.subarray(0, 6).equals(elf64LittleEndian) ||
    bytes.readUInt16LE(16) !== sharedObject ||
    bytes.readUInt16LE(18) !== aarch64
  ) {
    throw new Error(`${file} is no arm64 ELF shared object`)
  }
}
