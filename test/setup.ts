/** Before the first test, and again whenever files change in watch mode: the command and the doors as they are shipped. */
import type { TestProject } from 'vitest/node'
import { bundle } from '../tools/bundle.mjs'
import { fakeKvm } from './native/fake-kvm.js'

export default async function setup(project: TestProject): Promise<void> {
  await bundle()
  const fake = project.name === 'native' ? fakeKvm() : undefined
  if (fake !== undefined) project.config.env = { ...project.config.env, LD_PRELOAD: fake }
  project.onTestsRerun(bundle)
}
