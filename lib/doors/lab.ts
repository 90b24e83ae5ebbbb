/** `kvm-arm64/lab`: real arm64 kernels with KVM, booted under QEMU on any Linux machine. */
export {
  bootLab,
  type BootOptions,
  Lab,
  LabError,
  type LabErrorCode,
  type LabGic,
  type LabKernel,
  type LabPages,
  type LabTimings,
  listKernels,
  type RunOptions,
  type RunResult,
} from '../lab/index.js'
