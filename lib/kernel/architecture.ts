/** Explains why this package cannot use the KVM of this machine, and what to do. */
export interface WrongArchitecture {
  readonly problem: string
  readonly remedy: string
}

/** Checks the processor architecture of this machine, by Node's name for it; undefined where it is arm64. */
export function wrongArchitecture(architecture: string = process.arch): WrongArchitecture | undefined {
  if (architecture === 'arm64') return undefined
  return {
    problem: `this machine is ${architecture}, not arm64`,
    remedy:
      "Use a simulated host, openKvm(simulator('linux-6.12-neoverse-n1')), or boot a real arm64 kernel with bootLab() of kvm-arm64/lab",
  }
}
