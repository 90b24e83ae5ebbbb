/**
 * A program that creates a VM on the `/dev/kvm` that is its stdin, closes its stdout to say so, and sleeps for ever.
 *
 * A kernel counts its VMs in a static key (`preempt_notifier_key`): when the first comes and when the last goes, it rewrites
 * instructions of its own scheduler. QEMU 7.2 with a thread per CPU now and then goes on running the instructions of before
 * when another CPU executes them just then. A vCPU is then loaded without having been put, and the process that ran it gets
 * its guest's `TPIDR_EL0` for its own, or the machine locks up. While one VM stays, nothing is rewritten.
 */
export const vmKeeper: Buffer = executable(
  Uint32Array.of(
    0xd280_0000, // mov x0, #0
    0xd295_c021, // mov x1, #KVM_CREATE_VM
    0xd280_0002, // mov x2, #0
    0xd280_03a8, // mov x8, #29: ioctl
    0xd400_0001, // svc #0
    0xd280_0020, // mov x0, #1
    0xd280_0728, // mov x8, #57: close
    0xd400_0001, // svc #0
    0xd280_0000, // mov x0, #0
    0xd280_0001, // mov x1, #0
    0xd280_0002, // mov x2, #0
    0xd280_0003, // mov x3, #0
    0xd280_0928, // mov x8, #73: ppoll
    0xd400_0001, // svc #0
    0x17ff_fffa, // b .-24
  ),
)

/** A static ELF file of arm64 that starts with the first instruction. */
function executable(code: Uint32Array): Buffer {
  const address = 0x40_0000n
  const headers = 64 + 56
  const file = Buffer.alloc(headers + code.byteLength)
  file.write('\x7fELF\x02\x01\x01', 'latin1')
  file.writeUInt16LE(2, 16) // e_type: ET_EXEC
  file.writeUInt16LE(183, 18) // e_machine: EM_AARCH64
  file.writeUInt32LE(1, 20) // e_version
  file.writeBigUInt64LE(address + BigInt(headers), 24) // e_entry
  file.writeBigUInt64LE(64n, 32) // e_phoff
  file.writeUInt16LE(64, 52) // e_ehsize
  file.writeUInt16LE(56, 54) // e_phentsize
  file.writeUInt16LE(1, 56) // e_phnum
  file.writeUInt32LE(1, 64) // p_type: PT_LOAD
  file.writeUInt32LE(5, 68) // p_flags: read, execute
  file.writeBigUInt64LE(address, 80) // p_vaddr
  file.writeBigUInt64LE(address, 88) // p_paddr
  file.writeBigUInt64LE(BigInt(file.length), 96) // p_filesz
  file.writeBigUInt64LE(BigInt(file.length), 104) // p_memsz
  file.writeBigUInt64LE(0x1_0000n, 112) // p_align
  code.forEach((instruction, n) => file.writeUInt32LE(instruction, headers + 4 * n))
  return file
}
