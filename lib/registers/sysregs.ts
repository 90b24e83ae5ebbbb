/**
 * The architecture's system registers by encoding: all that any KVM from 5.10 to 7.3 lists or traps, and their neighbours up to EL2. Where a
 * kernel's and the Arm manual's spelling differ in case (APIAKeyLo_EL1), the kernel's upper case is used.
 *
 * Not here, though they have encodings: registers that KVM gives under an id of their own (the timers, and SPSR_EL1, ELR_EL1, SP_EL0, SP_EL1,
 * FPCR, FPSR and the banked SPSRs as core registers). One name means one id.
 */
import type { Below } from './below.js'
import { arm64Id, coprocessors, sizes } from './id.js'

/** How MRS and MSR name a system register. */
export interface SystemRegisterParts {
  /** 0 to 3. */
  op0: number
  /** 0 to 7. */
  op1: number
  /** 0 to 15. */
  crn: number
  /** 0 to 15. */
  crm: number
  /** 0 to 7. */
  op2: number
}

/** op0, op1, CRn, CRm, then the names for op2 0, 1, 2 … with "-" where there is none. */
const table = `
2 0  0  0  - - OSDTRRX_EL1
2 0  0  2  MDCCINT_EL1 - MDSCR_EL1
2 0  0  3  - - OSDTRTX_EL1
2 0  0  4  - - MDSELR_EL1
2 0  0  5  - - MDSTEPOP_EL1
2 0  0  6  - - OSECCR_EL1
2 0  1  0  MDRAR_EL1 - - - OSLAR_EL1
2 0  1  1  - - - - OSLSR_EL1
2 0  1  3  - - - - OSDLR_EL1
2 0  1  4  - - - - DBGPRCR_EL1
2 0  7  8  - - - - - - DBGCLAIMSET_EL1
2 0  7  9  - - - - - - DBGCLAIMCLR_EL1
2 0  7 14  - - - - - - DBGAUTHSTATUS_EL1
2 0  9 13  SPMCGCR0_EL1 SPMCGCR1_EL1 - SPMACCESSR_EL1 SPMIIDR_EL1 SPMDEVARCH_EL1 SPMDEVAFF_EL1 SPMCFGR_EL1
2 0  9 14  - SPMINTENSET_EL1 SPMINTENCLR_EL1
2 0 14 11  - - - - - - - PMCCNTSVR_EL1
2 0 14 12  PMICNTSVR_EL1
2 1  0  0  - TRCTRACEIDR TRCVICTLR - - - TRCIDR8
2 1  0  1  TRCPRGCTLR TRCQCTLR TRCVIIECTLR - - - TRCIDR9
2 1  0  2  - TRCITEEDCR TRCVISSCTLR - - - TRCIDR10
2 1  0  3  TRCSTATR - TRCVIPCSSCTLR - - - TRCIDR11
2 1  0  4  TRCCONFIGR - - - - - TRCIDR12
2 1  0  5  - - - - - - TRCIDR13
2 1  0  6  TRCAUXCTLR - - - TRCSEQRSTEVR
2 1  0  7  - - - - TRCSEQSTR
2 1  0  8  TRCEVENTCTL0R - - - - - - TRCIDR0
2 1  0  9  TRCEVENTCTL1R - - - - - - TRCIDR1
2 1  0 10  TRCRSR - - - - - - TRCIDR2
2 1  0 11  TRCSTALLCTLR - - - - - - TRCIDR3
2 1  0 12  TRCTSCTLR - - - - - - TRCIDR4
2 1  0 13  TRCSYNCPR - - - - - - TRCIDR5
2 1  0 14  TRCCCCTLR - - - - - - TRCIDR6
2 1  0 15  TRCBBCTLR - - - - - - TRCIDR7
2 1  1  0  - - - - TRCOSLAR
2 1  1  1  - - - - TRCOSLSR
2 1  3  0  - - TRCCIDCCTLR0
2 1  3  1  - - TRCCIDCCTLR1
2 1  3  2  - - TRCVMIDCCTLR0
2 1  3  3  - - TRCVMIDCCTLR1
2 1  7  2  - - - - - - - TRCDEVID
2 1  7  8  - - - - - - TRCCLAIMSET
2 1  7  9  - - - - - - TRCCLAIMCLR
2 1  7 14  - - - - - - TRCAUTHSTATUS
2 1  7 15  - - - - - - TRCDEVARCH
2 1  9  0  BRBCR_EL1 BRBFCR_EL1 BRBTS_EL1
2 1  9  1  BRBINFINJ_EL1 BRBSRCINJ_EL1 BRBTGTINJ_EL1
2 1  9  2  BRBIDR0_EL1
2 3  0  1  MDCCSR_EL0
2 3  0  4  DBGDTR_EL0
2 3  0  5  DBGDTRRX_EL0
2 3  9 12  SPMCR_EL0 SPMCNTENSET_EL0 SPMCNTENCLR_EL0 SPMOVSCLR_EL0 SPMZR_EL0 SPMSELR_EL0
2 3  9 14  - - - SPMOVSSET_EL0
2 4  0  7  DBGVCR32_EL2
2 4  9  0  BRBCR_EL2
2 5  9  0  BRBCR_EL12
2 5  9 13  - - - SPMACCESSR_EL12
2 7  9 14  - - - - - - - SPMSCR_EL1
3 0  0  0  MIDR_EL1 - - - - MPIDR_EL1 REVIDR_EL1
3 0  0  1  ID_PFR0_EL1 ID_PFR1_EL1 ID_DFR0_EL1 ID_AFR0_EL1 ID_MMFR0_EL1 ID_MMFR1_EL1 ID_MMFR2_EL1 ID_MMFR3_EL1
3 0  0  2  ID_ISAR0_EL1 ID_ISAR1_EL1 ID_ISAR2_EL1 ID_ISAR3_EL1 ID_ISAR4_EL1 ID_ISAR5_EL1 ID_MMFR4_EL1 ID_ISAR6_EL1
3 0  0  3  MVFR0_EL1 MVFR1_EL1 MVFR2_EL1 - ID_PFR2_EL1 ID_DFR1_EL1 ID_MMFR5_EL1
3 0  0  4  ID_AA64PFR0_EL1 ID_AA64PFR1_EL1 ID_AA64PFR2_EL1 - ID_AA64ZFR0_EL1 ID_AA64SMFR0_EL1 - ID_AA64FPFR0_EL1
3 0  0  5  ID_AA64DFR0_EL1 ID_AA64DFR1_EL1 ID_AA64DFR2_EL1 - ID_AA64AFR0_EL1 ID_AA64AFR1_EL1
3 0  0  6  ID_AA64ISAR0_EL1 ID_AA64ISAR1_EL1 ID_AA64ISAR2_EL1 ID_AA64ISAR3_EL1
3 0  0  7  ID_AA64MMFR0_EL1 ID_AA64MMFR1_EL1 ID_AA64MMFR2_EL1 ID_AA64MMFR3_EL1 ID_AA64MMFR4_EL1
3 0  1  0  SCTLR_EL1 ACTLR_EL1 CPACR_EL1 SCTLR2_EL1 - RGSR_EL1 GCR_EL1
3 0  1  2  ZCR_EL1 TRFCR_EL1 - TRCITECR_EL1 SMPRI_EL1 - SMCR_EL1
3 0  1  4  SCTLRMASK_EL1 ACTLRMASK_EL1 CPACRMASK_EL1 SCTLR2MASK_EL1 CPACRALIAS_EL1 ACTLRALIAS_EL1 SCTLRALIAS_EL1 SCTLR2ALIAS_EL1
3 0  2  0  TTBR0_EL1 TTBR1_EL1 TCR_EL1 TCR2_EL1
3 0  2  1  APIAKEYLO_EL1 APIAKEYHI_EL1 APIBKEYLO_EL1 APIBKEYHI_EL1
3 0  2  2  APDAKEYLO_EL1 APDAKEYHI_EL1 APDBKEYLO_EL1 APDBKEYHI_EL1
3 0  2  3  APGAKEYLO_EL1 APGAKEYHI_EL1
3 0  2  5  GCSCR_EL1 GCSPR_EL1 GCSCRE0_EL1
3 0  2  7  - - TCRMASK_EL1 TCR2MASK_EL1 - - TCRALIAS_EL1 TCR2ALIAS_EL1
3 0  4  2  SPSEL - CURRENTEL PAN UAO
3 0  4  3  ALLINT PM
3 0  4  6  ICC_PMR_EL1
3 0  5  1  AFSR0_EL1 AFSR1_EL1
3 0  5  2  ESR_EL1
3 0  5  3  ERRIDR_EL1 ERRSELR_EL1 ERXGSR_EL1
3 0  5  4  ERXFR_EL1 ERXCTLR_EL1 ERXSTATUS_EL1 ERXADDR_EL1 ERXPFGF_EL1 ERXPFGCTL_EL1 ERXPFGCDN_EL1
3 0  5  5  ERXMISC0_EL1 ERXMISC1_EL1 ERXMISC2_EL1 ERXMISC3_EL1
3 0  5  6  TFSR_EL1 TFSRE0_EL1
3 0  6  0  FAR_EL1 - - - - PFAR_EL1
3 0  7  4  PAR_EL1
3 0  9  9  PMSCR_EL1 PMSNEVFR_EL1 PMSICR_EL1 PMSIRR_EL1 PMSFCR_EL1 PMSEVFR_EL1 PMSLATFR_EL1 PMSIDR_EL1
3 0  9 10  PMBLIMITR_EL1 PMBPTR_EL1 - PMBSR_EL1 PMSDSFR_EL1 PMBMAR_EL1 - PMBIDR_EL1
3 0  9 11  TRBLIMITR_EL1 TRBPTR_EL1 TRBBASER_EL1 TRBSR_EL1 TRBMAR_EL1 TRBMPAM_EL1 TRBTRG_EL1 TRBIDR_EL1
3 0  9 13  - - - PMSSCR_EL1
3 0  9 14  - PMINTENSET_EL1 PMINTENCLR_EL1 - PMUACR_EL1 PMECR_EL1 PMMIR_EL1 PMIAR_EL1
3 0 10  2  MAIR_EL1 MAIR2_EL1 PIRE0_EL1 PIR_EL1 POR_EL1 S2POR_EL1
3 0 10  3  AMAIR_EL1 AMAIR2_EL1
3 0 10  4  LORSA_EL1 LOREA_EL1 LORN_EL1 LORC_EL1 MPAMIDR_EL1 - - LORID_EL1
3 0 10  5  MPAM1_EL1 MPAM0_EL1 - MPAMSM_EL1
3 0 12  0  VBAR_EL1 RVBAR_EL1 RMR_EL1
3 0 12  1  ISR_EL1 DISR_EL1
3 0 12  8  ICC_IAR0_EL1 ICC_EOIR0_EL1 ICC_HPPIR0_EL1 ICC_BPR0_EL1 ICC_AP0R0_EL1 ICC_AP0R1_EL1 ICC_AP0R2_EL1 ICC_AP0R3_EL1
3 0 12  9  ICC_AP1R0_EL1 ICC_AP1R1_EL1 ICC_AP1R2_EL1 ICC_AP1R3_EL1 - ICC_NMIAR1_EL1
3 0 12 10  ICC_PPI_HMR0_EL1 ICC_PPI_HMR1_EL1 ICC_IDR0_EL1 ICC_HPPIR_EL1 ICC_ICSR_EL1 ICC_IAFFIDR_EL1 ICC_PPI_ENABLER0_EL1 ICC_PPI_ENABLER1_EL1
3 0 12 11  - ICC_DIR_EL1 - ICC_RPR_EL1 - ICC_SGI1R_EL1 ICC_ASGI1R_EL1 ICC_SGI0R_EL1
3 0 12 12  ICC_IAR1_EL1 ICC_EOIR1_EL1 ICC_HPPIR1_EL1 ICC_BPR1_EL1 ICC_CTLR_EL1 ICC_SRE_EL1 ICC_IGRPEN0_EL1 ICC_IGRPEN1_EL1
3 0 12 13  ICC_PPI_CACTIVER0_EL1 ICC_PPI_CACTIVER1_EL1 ICC_PPI_SACTIVER0_EL1 ICC_PPI_SACTIVER1_EL1 ICC_PPI_CPENDR0_EL1 ICC_PPI_CPENDR1_EL1 ICC_PPI_SPENDR0_EL1 ICC_PPI_SPENDR1_EL1
3 0 13  0  - CONTEXTIDR_EL1 - RCWSMASK_EL1 TPIDR_EL1 ACCDATA_EL1 RCWMASK_EL1 SCXTNUM_EL1
3 0 14  1  CNTKCTL_EL1
3 1  0  0  CCSIDR_EL1 CLIDR_EL1 CCSIDR2_EL1 - GMID_EL1 - SMIDR_EL1 AIDR_EL1
3 1 12  0  ICC_APR_EL1 ICC_CR0_EL1 ICC_PCR_EL1
3 2  0  0  CSSELR_EL1
3 3  0  0  - CTR_EL0 - - - - - DCZID_EL0
3 3  2  4  RNDR_EL0 RNDRRS_EL0
3 3  2  5  - GCSPR_EL0
3 3  4  2  NZCV DAIF SVCR - - DIT SSBS TCO
3 3  4  4  - - FPMR
3 3  4  5  DSPSR_EL0 DLR_EL0
3 3  9  4  PMICNTR_EL0
3 3  9  6  PMICFILTR_EL0
3 3  9 12  PMCR_EL0 PMCNTENSET_EL0 PMCNTENCLR_EL0 PMOVSCLR_EL0 PMSWINC_EL0 PMSELR_EL0 PMCEID0_EL0 PMCEID1_EL0
3 3  9 13  PMCCNTR_EL0 PMXEVTYPER_EL0 PMXEVCNTR_EL0 - PMZR_EL0
3 3  9 14  PMUSERENR_EL0 - - PMOVSSET_EL0
3 3 10  2  - - - - POR_EL0
3 3 13  0  - - TPIDR_EL0 TPIDRRO_EL0 - TPIDR2_EL0 - SCXTNUM_EL0
3 3 13  2  AMCR_EL0 AMCFGR_EL0 AMCGCR_EL0 AMUSERENR_EL0 AMCNTENCLR0_EL0 AMCNTENSET0_EL0 AMCG1IDR_EL0
3 3 13  3  AMCNTENCLR1_EL0 AMCNTENSET1_EL0
3 3 14  0  CNTFRQ_EL0 - - - - CNTPCTSS_EL0 CNTVCTSS_EL0
3 3 14  2  CNTP_TVAL_EL0
3 3 14  3  CNTV_TVAL_EL0
3 3 14 15  - - - - - - - PMCCFILTR_EL0
3 4  0  0  VPIDR_EL2 - - - - VMPIDR_EL2
3 4  1  0  SCTLR_EL2 ACTLR_EL2 - SCTLR2_EL2
3 4  1  1  HCR_EL2 MDCR_EL2 CPTR_EL2 HSTR_EL2 HFGRTR_EL2 HFGWTR_EL2 HFGITR_EL2 HACR_EL2
3 4  1  2  ZCR_EL2 TRFCR_EL2 HCRX_EL2 - - SMPRIMAP_EL2 SMCR_EL2
3 4  1  3  - SDER32_EL2
3 4  1  5  NVHCR_EL2
3 4  2  0  TTBR0_EL2 TTBR1_EL2 TCR_EL2 TCR2_EL2
3 4  2  1  VTTBR_EL2 - VTCR_EL2
3 4  2  2  VNCR_EL2
3 4  2  3  - - HDBSSBR_EL2 HDBSSPROD_EL2
3 4  2  5  GCSCR_EL2 GCSPR_EL2
3 4  2  6  VSTTBR_EL2 - VSTCR_EL2
3 4  3  0  DACR32_EL2
3 4  3  1  HDFGRTR2_EL2 HDFGWTR2_EL2 HFGRTR2_EL2 HFGWTR2_EL2 HDFGRTR_EL2 HDFGWTR_EL2 HAFGRTR_EL2 HFGITR2_EL2
3 4  4  0  SPSR_EL2 ELR_EL2
3 4  5  0  - IFSR32_EL2
3 4  5  1  AFSR0_EL2 AFSR1_EL2
3 4  5  2  ESR_EL2 - - VSESR_EL2
3 4  5  3  FPEXC32_EL2
3 4  5  6  TFSR_EL2
3 4  6  0  FAR_EL2 - - - HPFAR_EL2
3 4  9  9  PMSCR_EL2
3 4 10  1  - MAIR2_EL2
3 4 10  2  MAIR_EL2 - PIRE0_EL2 PIR_EL2 POR_EL2 S2PIR_EL2
3 4 10  3  AMAIR_EL2 AMAIR2_EL2
3 4 10  4  MPAMHCR_EL2 MPAMVPMV_EL2
3 4 10  5  MPAM2_EL2
3 4 10  6  MPAMVPM0_EL2 MPAMVPM1_EL2 MPAMVPM2_EL2 MPAMVPM3_EL2 MPAMVPM4_EL2 MPAMVPM5_EL2 MPAMVPM6_EL2 MPAMVPM7_EL2
3 4 12  0  VBAR_EL2 RVBAR_EL2 RMR_EL2
3 4 12  1  - VDISR_EL2
3 4 12  8  ICH_AP0R0_EL2 ICH_AP0R1_EL2 ICH_AP0R2_EL2 ICH_AP0R3_EL2 ICH_APR_EL2
3 4 12  9  ICH_AP1R0_EL2 ICH_AP1R1_EL2 ICH_AP1R2_EL2 ICH_AP1R3_EL2 ICH_HFGRTR_EL2 ICC_SRE_EL2 ICH_HFGWTR_EL2 ICH_HFGITR_EL2
3 4 12 10  ICH_PPI_DVIR0_EL2 ICH_PPI_DVIR1_EL2 ICH_PPI_ENABLER0_EL2 ICH_PPI_ENABLER1_EL2 ICH_PPI_PENDR0_EL2 ICH_PPI_PENDR1_EL2 ICH_PPI_ACTIVER0_EL2 ICH_PPI_ACTIVER1_EL2
3 4 12 11  ICH_HCR_EL2 ICH_VTR_EL2 ICH_MISR_EL2 ICH_EISR_EL2 ICH_VCTLR_EL2 ICH_ELRSR_EL2 ICH_CONTEXTR_EL2 ICH_VMCR_EL2
3 4 13  0  - CONTEXTIDR_EL2 TPIDR_EL2 - - - - SCXTNUM_EL2
3 4 14  0  - - - CNTVOFF_EL2 - - CNTPOFF_EL2
3 4 14  1  CNTHCTL_EL2
3 4 14  2  CNTHP_TVAL_EL2 CNTHP_CTL_EL2 CNTHP_CVAL_EL2
3 4 14  3  CNTHV_TVAL_EL2 CNTHV_CTL_EL2 CNTHV_CVAL_EL2
3 4 14  4  CNTHVS_TVAL_EL2 CNTHVS_CTL_EL2 CNTHVS_CVAL_EL2
3 4 14  5  CNTHPS_TVAL_EL2 CNTHPS_CTL_EL2 CNTHPS_CVAL_EL2
3 5  1  0  SCTLR_EL12 ACTLR_EL12 CPACR_EL12 SCTLR2_EL12
3 5  1  2  ZCR_EL12 TRFCR_EL12 - TRCITECR_EL12 - - SMCR_EL12
3 5  1  4  SCTLRMASK_EL12 ACTLRMASK_EL12 CPACRMASK_EL12 SCTLR2MASK_EL12
3 5  2  0  TTBR0_EL12 TTBR1_EL12 TCR_EL12 TCR2_EL12
3 5  2  5  GCSCR_EL12 GCSPR_EL12
3 5  2  7  - - TCRMASK_EL12 TCR2MASK_EL12
3 5  4  0  SPSR_EL12 ELR_EL12
3 5  5  1  AFSR0_EL12 AFSR1_EL12
3 5  5  2  ESR_EL12
3 5  5  6  TFSR_EL12
3 5  6  0  FAR_EL12 - - - - PFAR_EL12
3 5  9  9  PMSCR_EL12
3 5 10  2  MAIR_EL12 - PIRE0_EL12 PIR_EL12 POR_EL12
3 5 10  3  AMAIR_EL12
3 5 10  5  MPAM1_EL12
3 5 12  0  VBAR_EL12
3 5 13  0  - CONTEXTIDR_EL12 - - - - - SCXTNUM_EL12
3 5 14  1  CNTKCTL_EL12
3 5 14  2  CNTP_TVAL_EL02 CNTP_CTL_EL02 CNTP_CVAL_EL02
3 5 14  3  CNTV_TVAL_EL02 CNTV_CTL_EL02 CNTV_CVAL_EL02
3 6  4  1  SP_EL2
`

/** Registers whose number is spread over CRm and op2: their count, the name before and after the number, the encoding. */
const families = [
  [16, 'DBGBVR', '_EL1', (n: number) => ({ op0: 2, op1: 0, crn: 0, crm: n, op2: 4 })],
  [16, 'DBGBCR', '_EL1', (n: number) => ({ op0: 2, op1: 0, crn: 0, crm: n, op2: 5 })],
  [16, 'DBGWVR', '_EL1', (n: number) => ({ op0: 2, op1: 0, crn: 0, crm: n, op2: 6 })],
  [16, 'DBGWCR', '_EL1', (n: number) => ({ op0: 2, op1: 0, crn: 0, crm: n, op2: 7 })],
  [31, 'PMEVCNTSVR', '_EL1', (n: number) => ({ op0: 2, op1: 0, crn: 14, crm: 8 | (n >> 3), op2: n & 7 })],
  [31, 'PMEVCNTR', '_EL0', (n: number) => ({ op0: 3, op1: 3, crn: 14, crm: 8 | (n >> 3), op2: n & 7 })],
  [31, 'PMEVTYPER', '_EL0', (n: number) => ({ op0: 3, op1: 3, crn: 14, crm: 12 | (n >> 3), op2: n & 7 })],
  [16, 'SPMEVCNTR', '_EL0', (n: number) => ({ op0: 2, op1: 3, crn: 14, crm: n >> 3, op2: n & 7 })],
  [16, 'SPMEVTYPER', '_EL0', (n: number) => ({ op0: 2, op1: 3, crn: 14, crm: 2 | (n >> 3), op2: n & 7 })],
  [16, 'SPMEVFILTR', '_EL0', (n: number) => ({ op0: 2, op1: 3, crn: 14, crm: 4 | (n >> 3), op2: n & 7 })],
  [16, 'SPMEVFILT2R', '_EL0', (n: number) => ({ op0: 2, op1: 3, crn: 14, crm: 6 | (n >> 3), op2: n & 7 })],
  [16, 'AMEVCNTR0', '_EL0', (n: number) => ({ op0: 3, op1: 3, crn: 13, crm: 4 | (n >> 3), op2: n & 7 })],
  [16, 'AMEVTYPER0', '_EL0', (n: number) => ({ op0: 3, op1: 3, crn: 13, crm: 6 | (n >> 3), op2: n & 7 })],
  [16, 'AMEVCNTR1', '_EL0', (n: number) => ({ op0: 3, op1: 3, crn: 13, crm: 12 | (n >> 3), op2: n & 7 })],
  [16, 'AMEVTYPER1', '_EL0', (n: number) => ({ op0: 3, op1: 3, crn: 13, crm: 14 | (n >> 3), op2: n & 7 })],
  [16, 'AMEVCNTVOFF0', '_EL2', (n: number) => ({ op0: 3, op1: 4, crn: 13, crm: 8 | (n >> 3), op2: n & 7 })],
  [16, 'AMEVCNTVOFF1', '_EL2', (n: number) => ({ op0: 3, op1: 4, crn: 13, crm: 10 | (n >> 3), op2: n & 7 })],
  [16, 'ICH_LR', '_EL2', (n: number) => ({ op0: 3, op1: 4, crn: 12, crm: 12 | (n >> 3), op2: n & 7 })],
  [
    16,
    'ICC_PPI_PRIORITYR',
    '_EL1',
    (n: number) => ({ op0: 3, op1: 0, crn: 12, crm: 14 | (n >> 3), op2: n & 7 }),
  ],
  [
    16,
    'ICH_PPI_PRIORITYR',
    '_EL2',
    (n: number) => ({ op0: 3, op1: 4, crn: 12, crm: 14 | (n >> 3), op2: n & 7 }),
  ],
  [32, 'BRBINF', '_EL1', (n: number) => ({ op0: 2, op1: 1, crn: 8, crm: n & 15, op2: (n & 16) >> 2 })],
  [32, 'BRBSRC', '_EL1', (n: number) => ({ op0: 2, op1: 1, crn: 8, crm: n & 15, op2: ((n & 16) >> 2) | 1 })],
  [32, 'BRBTGT', '_EL1', (n: number) => ({ op0: 2, op1: 1, crn: 8, crm: n & 15, op2: ((n & 16) >> 2) | 2 })],
  [16, 'TRCACVR', '', (n: number) => ({ op0: 2, op1: 1, crn: 2, crm: (n & 7) << 1, op2: n >> 3 })],
  [16, 'TRCACATR', '', (n: number) => ({ op0: 2, op1: 1, crn: 2, crm: (n & 7) << 1, op2: 2 | (n >> 3) })],
  [8, 'TRCCIDCVR', '', (n: number) => ({ op0: 2, op1: 1, crn: 3, crm: n << 1, op2: 0 })],
  [8, 'TRCVMIDCVR', '', (n: number) => ({ op0: 2, op1: 1, crn: 3, crm: n << 1, op2: 1 })],
  [3, 'TRCSEQEVR', '', (n: number) => ({ op0: 2, op1: 1, crn: 0, crm: n, op2: 4 })],
  [4, 'TRCEXTINSELR', '', (n: number) => ({ op0: 2, op1: 1, crn: 0, crm: 8 | n, op2: 4 })],
  [4, 'TRCCNTRLDVR', '', (n: number) => ({ op0: 2, op1: 1, crn: 0, crm: n, op2: 5 })],
  [4, 'TRCCNTCTLR', '', (n: number) => ({ op0: 2, op1: 1, crn: 0, crm: 4 | n, op2: 5 })],
  [4, 'TRCCNTVR', '', (n: number) => ({ op0: 2, op1: 1, crn: 0, crm: 8 | n, op2: 5 })],
  [8, 'TRCIMSPEC', '', (n: number) => ({ op0: 2, op1: 1, crn: 0, crm: n, op2: 7 })],
  [32, 'TRCRSCTLR', '', (n: number) => ({ op0: 2, op1: 1, crn: 1, crm: n & 15, op2: n >> 4 })],
  [8, 'TRCSSCCR', '', (n: number) => ({ op0: 2, op1: 1, crn: 1, crm: n, op2: 2 })],
  [8, 'TRCSSCSR', '', (n: number) => ({ op0: 2, op1: 1, crn: 1, crm: 8 | n, op2: 2 })],
  [8, 'TRCSSPCICR', '', (n: number) => ({ op0: 2, op1: 1, crn: 1, crm: n, op2: 3 })],
] as const satisfies readonly [
  count: number,
  before: string,
  after: string,
  parts: (n: number) => SystemRegisterParts,
][]

/** Second names of an encoding: one register to read, another to write. */
const aliases = { DBGDTRTX_EL0: 'DBGDTRRX_EL0' } as const

type Words<Row extends string, Found extends string = never> = Row extends `${infer Word} ${infer Rest}`
  ? Words<Rest, Found | Word>
  : Found | Row
type WordsOfRows<
  Text extends string,
  Found extends string = never,
> = Text extends `${infer Row}\n${infer Rest}` ? WordsOfRows<Rest, Found | Words<Row>> : Found | Words<Text>
type Family = (typeof families)[number]
type FamilyName<F> = F extends readonly [
  infer Count extends number,
  infer Before extends string,
  infer After extends string,
  unknown,
]
  ? `${Before}${Below<Count>}${After}`
  : never

/** Every architectural name of a system register, derived from the tables above by the compiler. */
export type SystemRegisterName =
  Exclude<WordsOfRows<typeof table>, '' | '-' | `${number}`> | FamilyName<Family> | keyof typeof aliases

/** Bits 15:0 of a system register's id. */
export function systemRegisterIndex({ op0, op1, crn, crm, op2 }: SystemRegisterParts): number {
  return (op0 << 14) | (op1 << 11) | (crn << 7) | (crm << 3) | op2
}

/** The inverse of `systemRegisterIndex`, for 0 to 65535. */
export function systemRegisterParts(index: number): SystemRegisterParts {
  return {
    op0: (index >> 14) & 3,
    op1: (index >> 11) & 7,
    crn: (index >> 7) & 15,
    crm: (index >> 3) & 15,
    op2: index & 7,
  }
}

/**
 * Id of the system register with this encoding (`ARM64_SYS_REG` of the kernel), named or not.
 *
 * @throws RangeError if a part does not fit its bits
 */
export function systemRegisterId(parts: SystemRegisterParts): bigint {
  const limits = { op0: 3, op1: 7, crn: 15, crm: 15, op2: 7 }
  for (const [part, limit] of Object.entries(limits)) {
    const value = parts[part as keyof SystemRegisterParts]
    if (!Number.isInteger(value) || value < 0 || value > limit) {
      throw new RangeError(`${part} of a system register is 0 to ${limit}, not ${value}`)
    }
  }
  return arm64Id(sizes.U64, coprocessors.SYSREG, systemRegisterIndex(parts))
}

/** Returns the assembler's name of an encoding without an architectural name. */
export function genericName(index: number): string {
  const { op0, op1, crn, crm, op2 } = systemRegisterParts(index)
  return `S${op0}_${op1}_C${crn}_C${crm}_${op2}`
}

/** Returns bits 15:0 of the id for a generic name (`S3_0_C0_C4_3`, any case); undefined for any other text. */
export function parseGenericName(name: string): number | undefined {
  const match = /^s([0-3])_([0-7])_c([0-9]|1[0-5])_c([0-9]|1[0-5])_([0-7])$/i.exec(name)
  if (match === null) return undefined
  const [op0, op1, crn, crm, op2] = match.slice(1).map(Number) as [number, number, number, number, number]
  return systemRegisterIndex({ op0, op1, crn, crm, op2 })
}

const names = new Map<number, string>()
const indices = new Map<string, number>()

function add(index: number, name: string): void {
  names.set(index, name)
  indices.set(name, index)
}

// Every import of the package runs this, so it makes indices and leaves the bigints of a thousand ids to those who look one up.
for (const line of table.trim().split('\n')) {
  const [op0, op1, crn, crm, ...row] = line.split(/ +/)
  const first = systemRegisterIndex({
    op0: Number(op0),
    op1: Number(op1),
    crn: Number(crn),
    crm: Number(crm),
    op2: 0,
  })
  row.forEach((name, op2) => {
    if (name !== '-') add(first + op2, name)
  })
}
for (const [count, before, after, parts] of families) {
  for (let n = 0; n < count; n++) add(systemRegisterIndex(parts(n)), `${before}${n}${after}`)
}
for (const [alias, name] of Object.entries(aliases)) indices.set(alias, indices.get(name)!)

/** Architectural name by bits 15:0 of the id. */
export const systemRegisterNames: ReadonlyMap<number, string> = names

/** Bits 15:0 of the id by architectural name, which is upper case, second names included. */
export const systemRegisterIndices: ReadonlyMap<string, number> = indices
