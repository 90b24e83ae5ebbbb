/** The smallest file that is taken for an arm64 kernel: 4 KiB that need 8. */
export function kernelImage({ textOffset = 0n, size = 0x2000n, magic = 0x644d_5241 } = {}): Buffer {
  const bytes = Buffer.alloc(0x1000, 0xd5)
  bytes.writeBigUInt64LE(textOffset, 8)
  bytes.writeBigUInt64LE(size, 16)
  bytes.writeUInt32LE(magic, 56)
  return bytes
}
