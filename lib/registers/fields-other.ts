/** Fields of other registers that identify a CPU or its firmware; the notation is that of `fields-aarch64.ts`. */

/** Cache geometry: part of the ID space, compared field by field by the kernel. */
export const cacheTypeFields: Readonly<Record<string, readonly string[]>> = {
  CTR_EL0: [
    'TminLine 37:32',
    'DIC 29 | 0 instruction caches need invalidation; 1 they need none',
    'IDC 28 | 0 data caches need cleaning; 1 they need none',
    'CWG 27:24 higher-or-zero',
    'ERG 23:20 higher-or-zero',
    'DminLine 19:16',
    'L1Ip 15:14 only=2 | 0 VPIPT; 1 AIVIVT; 2 VIPT; 3 PIPT',
    'IminLine 3:0',
  ],
  DCZID_EL0: ['DZP 4 only=1 | 0 DC ZVA permitted; 1 prohibited', 'BS 3:0'],
}

const cacheType = '| 0 none; 1 instruction; 2 data; 3 instruction and data; 4 unified'
const mitigation = '| 0 not available; 1 available; 2 not required'

/** Registers whose fields have no order of safety. */
export const identityFields: Readonly<Record<string, readonly string[]>> = {
  MIDR_EL1: [
    'Implementer 31:24 | 65 Arm; 66 Broadcom; 67 Cavium; 70 Fujitsu; 72 HiSilicon; 78 NVIDIA; 80 Applied Micro; ' +
      '81 Qualcomm; 83 Samsung; 86 Marvell; 97 Apple; 109 Microsoft; 112 Phytium; 192 Ampere',
    'Variant 23:20',
    'Architecture 19:16 | 15 described by the ID registers',
    'PartNum 15:4',
    'Revision 3:0',
  ],
  MPIDR_EL1: [
    'Aff3 39:32',
    'U 30 | 0 multiprocessor; 1 uniprocessor',
    'MT 24 | 0 Aff0 is a core; 1 Aff0 is a thread',
    'Aff2 23:16',
    'Aff1 15:8',
    'Aff0 7:0',
  ],
  CLIDR_EL1: [
    'Ttype7 46:45',
    'Ttype6 44:43',
    'Ttype5 42:41',
    'Ttype4 40:39',
    'Ttype3 38:37',
    'Ttype2 36:35',
    'Ttype1 34:33',
    'ICB 32:30',
    'LoUU 29:27',
    'LoC 26:24',
    'LoUIS 23:21',
    `Ctype7 20:18 ${cacheType}`,
    `Ctype6 17:15 ${cacheType}`,
    `Ctype5 14:12 ${cacheType}`,
    `Ctype4 11:9 ${cacheType}`,
    `Ctype3 8:6 ${cacheType}`,
    `Ctype2 5:3 ${cacheType}`,
    `Ctype1 2:0 ${cacheType}`,
  ],
  CCSIDR_EL1: ['NumSets 27:13', 'Associativity 12:3', 'LineSize 2:0'],
  CCSIDR2_EL1: ['NumSets 23:0'],
  CSSELR_EL1: ['TnD 4', 'Level 3:1', 'InD 0 | 0 data or unified; 1 instruction'],
  GMID_EL1: ['BS 3:0'],
  SMIDR_EL1: [
    'NSMC 59:56',
    'HIP 55:52',
    'AFFINITY2 51:32',
    'IMPLEMENTER 31:24',
    'REVISION 23:16',
    'SMPS 15',
    'SH 14:13',
    'AFFINITY 11:0',
  ],
  KVM_REG_ARM_PSCI_VERSION: ['Major 31:16', 'Minor 15:0'],
  KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_1: [`Level 3:0 ${mitigation}`],
  KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2: [
    'Enabled 4 flag',
    'Level 3:0 | 0 not available; 1 unknown; 2 available; 3 not required',
  ],
  KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_3: [`Level 3:0 ${mitigation}`],
}
