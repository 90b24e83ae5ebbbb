/** The kernel's userspace contract as checks that run on any backend. */
export type { Check, CheckGroup, CheckResult, Mark, Verdict } from './check.js'
export { checkGroups } from './checks/index.js'
export { junitXml } from './junit.js'
export { conformance, type ConformanceOptions, selectChecks } from './run.js'
