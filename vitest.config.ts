/**
 * The tests of everything that runs outside the lab's machine, in projects by what they need:
 *
 * - `unit` needs the sources alone;
 * - `native` needs the addon for this machine, and the programs that tsc makes of test/native;
 * - `package` needs all that the package consists of, `browser` a Chromium, `lab` also QEMU, and minutes.
 */
import { fileURLToPath } from 'node:url'
import { defineConfig, type TestProjectInlineConfiguration } from 'vitest/config'

const minute = 60_000

const lab = ['lab', 'lab-kernels']
const others = ['native', 'package', 'browser', ...lab]

/** `order`: projects of the same order run side by side, those of a higher one later. */
function project(
  name: string,
  folders: string[],
  order: number,
  limit: number,
): TestProjectInlineConfiguration {
  return {
    extends: true,
    test: {
      name,
      include: folders.map((folder) => `test/${folder}/**/*.test.ts`),
      testTimeout: limit,
      hookTimeout: limit,
      sequence: { groupOrder: order },
    },
  }
}

const native = project('native', ['native'], 1, 2 * minute)

export default defineConfig({
  // Node 20 has no `using`.
  oxc: { target: 'es2023' },
  test: {
    // An addon and a pool of threads do not get on.
    pool: 'forks',
    maxWorkers: 2,
    globalSetup: 'test/setup.ts',
    coverage: {
      provider: 'v8',
      include: ['lib/simulator/**'],
      reporter: 'text-summary',
      thresholds: { branches: 95 },
    },
    projects: [
      project('unit', ['!(' + others.join('|') + ')'], 0, minute),
      {
        ...native,
        resolve: {
          alias: { 'node:test': fileURLToPath(new URL('test/native/on-vitest.ts', import.meta.url)) },
        },
      },
      project('package', ['package'], 2, 10 * minute),
      project('browser', ['browser'], 3, 2 * minute),
      project('lab', lab, 4, 20 * minute),
    ],
  },
})
