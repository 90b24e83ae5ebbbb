// A script for `kvm-arm64 trace record recorded-script.mjs`: its default export receives an open Kvm.
export default function script(kvm) {
  const vm = kvm.createVm()
  const vcpu = vm.createVcpu(0, { features: ['psci-0.2'] })
  vm.services.elect({ std: [] })
  vcpu.freeze()
  vm.close()
}
