/** The smallest file that is taken for an arm64 kernel: 4 KiB that need 8. */
export function kernelImage({ textOffset = 0n, size = 0x2000n, magic = 0x644d_5241 } = {}): Buffer {
  const bytes = Buffer.alloc(0x1000, 0xd5)
  bytes.writeBigUInt64LE(textOffset, 8)
  bytes.writeBigUInt64LE(size, 16)
  bytes.writeUInt32LE(magic, 56)
  return bytes
}

/** An EFI zboot image whose header gives its payload `size` bytes. */
export function zbootImage(compression: string, payload: Uint8Array, size = payload.length): Buffer {
  const head = Buffer.alloc(0x200)
  head.write('MZ')
  head.write('zimg', 4)
  head.writeUInt32LE(head.length, 8)
  head.writeUInt32LE(size, 12)
  head.write(compression, 24)
  head.writeUInt32LE(0x8182_23cd, 56)
  return Buffer.concat([head, payload, Buffer.alloc(8)])
}
