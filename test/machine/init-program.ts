/** The smallest program Linux runs as its init, made without a compiler: it prints a line, waits and switches the machine off. */

const LOAD_ADDRESS = 0x40_0000
const ELF_HEADER = 64
const PROGRAM_HEADER = 56
const CODE = ELF_HEADER + PROGRAM_HEADER

const sys = { write: 64, nanosleep: 101, reboot: 142 }
const LINUX_REBOOT_MAGIC1 = 0xfee1_dead
const LINUX_REBOOT_MAGIC2 = 0x2812_1969
const LINUX_REBOOT_CMD_POWER_OFF = 0x4321_fedc

/** Instructions that load a number of 32 bits into a register: `movz`, `movk`. */
function load(register: number, value: number): number[] {
  const [low, high] = [value & 0xffff, value >>> 16]
  return [0xd280_0000 + low * 32 + register, 0xf2a0_0000 + high * 32 + register]
}

function call(number: number, ...args: number[]): number[] {
  const svc = 0xd400_0001
  return [...args.flatMap((value, register) => load(register, value)), ...load(8, number), svc]
}

/**
 * Returns a static ELF program for arm64.
 * @param wait whole seconds
 */
export function initProgram(line: string, wait = 0): Uint8Array {
  const text = Buffer.from(`${line}\n`)
  const time = Buffer.alloc(16)
  time.writeBigUInt64LE(BigInt(wait))
  const instructions = (address: number) => [
    ...call(sys.write, 1, address + time.length, text.length),
    ...call(sys.nanosleep, address, 0),
    ...call(sys.reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_POWER_OFF),
  ]
  const textOffset = Math.ceil((CODE + 4 * instructions(0).length) / 8) * 8
  const code = instructions(LOAD_ADDRESS + textOffset)
  const file = Buffer.alloc(textOffset + time.length + text.length)
  const executable = 2
  const arm64 = 183
  const loaded = 1
  const readAndExecute = 5
  file.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1])
  file.writeUInt16LE(executable, 16)
  file.writeUInt16LE(arm64, 18)
  file.writeUInt32LE(1, 20)
  file.writeBigUInt64LE(BigInt(LOAD_ADDRESS + CODE), 24)
  file.writeBigUInt64LE(BigInt(ELF_HEADER), 32)
  file.writeUInt16LE(ELF_HEADER, 52)
  file.writeUInt16LE(PROGRAM_HEADER, 54)
  file.writeUInt16LE(1, 56)
  file.writeUInt32LE(loaded, ELF_HEADER)
  file.writeUInt32LE(readAndExecute, ELF_HEADER + 4)
  file.writeBigUInt64LE(BigInt(LOAD_ADDRESS), ELF_HEADER + 16)
  file.writeBigUInt64LE(BigInt(LOAD_ADDRESS), ELF_HEADER + 24)
  file.writeBigUInt64LE(BigInt(file.length), ELF_HEADER + 32)
  file.writeBigUInt64LE(BigInt(file.length), ELF_HEADER + 40)
  file.writeBigUInt64LE(0x1_0000n, ELF_HEADER + 48)
  for (const [index, instruction] of code.entries()) file.writeUInt32LE(instruction, CODE + 4 * index)
  time.copy(file, textOffset)
  text.copy(file, textOffset + time.length)
  return file
}
