/** `kvm-arm64/conformance`: the kernel's userspace contract as checks that run on any backend. */
export {
  type Check,
  type CheckGroup,
  checkGroups,
  type CheckResult,
  conformance,
  type ConformanceOptions,
  junitXml,
  type Mark,
  type Verdict,
} from '../conformance/index.js'
