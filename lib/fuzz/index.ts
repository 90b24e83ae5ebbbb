/** Generates calls on which two backends may differ, and shrinks those on which they do. */
export type { FuzzFinding } from './compare.js'
export { fuzz, type FuzzOptions } from './fuzz.js'
export { type Profile, profiles } from './generator.js'
