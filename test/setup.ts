/** Before the first test, and again whenever files change in watch mode: the command and the doors as they are shipped. */
import type { TestProject } from 'vitest/node'
import { bundle } from '../tools/bundle.mjs'

export default async function setup(project: TestProject): Promise<void> {
  await bundle()
  project.onTestsRerun(bundle)
}
