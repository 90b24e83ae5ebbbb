/**
 * The tests of everything that runs outside the lab's machine, in projects by what they need:
 *
 * - `unit` needs the sources alone, and takes a minute; `long` the same, and takes minutes: it starts the command some hundred times,
 *   and plants faults and finds them again;
 * - `native` needs the addon for this machine, and the programs that tsc makes of test/native;
 * - `package` needs all that the package consists of, `browser` a Chromium, `lab` QEMU and the build.
 */
import { fileURLToPath } from 'node:url'
import { configDefaults, defineConfig, type TestProjectInlineConfiguration } from 'vitest/config'
import { BaseSequencer, type TestSpecification } from 'vitest/node'

/**
 * Limits are for machines several times slower than a developer's. With six processes on each core, the slowest unit test took 30 s,
 * the slowest of `long` 46 s; the package's tests install packages, and the lab's download and boot kernels.
 */
const minute = 60_000

const long = [
  'test/cli/**/*.test.ts',
  'test/trace/cli.test.ts',
  'test/fuzz/faults.test.ts',
  'test/conformance/faults.test.ts',
  'test/fleet/baseline/baseline-moves.test.ts',
  'test/machine/dtc.test.ts',
]

/** The files that take minutes, the slowest first. One that starts last is waited for with all other processors idle. */
const slowest = [
  'test/lab-kernels/hosts/linux-5.10-max.test.ts',
  'test/lab-kernels/hosts/linux-7.2-max.test.ts',
  'test/lab-kernels/qemu.test.ts',
  'test/lab-kernels/soak.test.ts',
  'test/lab-kernels/docs.test.ts',
]

class SlowestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    // oxlint-disable-next-line unicorn/no-array-sort -- the sequencer's method, not an array's
    const sorted = await super.sort(files)
    const first = slowest.flatMap((path) => sorted.filter(({ moduleId }) => moduleId.endsWith(`/${path}`)))
    return [...first, ...sorted.filter((file) => !first.includes(file))]
  }
}

interface Project {
  include: string[]
  exclude?: string[]
  /** What one test or hook may take, in milliseconds. */
  limit: number
  /** Projects of the same order run side by side, those of a higher one later. */
  order?: number
  alias?: Record<string, string>
}

function project(
  name: string,
  { include, exclude = [], limit, order = 0, alias = {} }: Project,
): TestProjectInlineConfiguration {
  return {
    extends: true,
    resolve: { alias },
    test: {
      name,
      include,
      exclude: [...configDefaults.exclude, ...exclude],
      testTimeout: limit,
      hookTimeout: limit,
      sequence: { groupOrder: order },
    },
  }
}

export default defineConfig({
  // Node 20 has no `using`.
  oxc: { target: 'es2023' },
  test: {
    // An addon and a pool of threads do not get on.
    pool: 'forks',
    maxWorkers: 2,
    sequence: { sequencer: SlowestFirst },
    globalSetup: 'test/setup.ts',
    reporters: ['default', ['junit', { outputFile: 'test-results/vitest.xml' }]],
    coverage: {
      provider: 'v8',
      include: ['lib/simulator/**'],
      reporter: 'text-summary',
      thresholds: { branches: 95 },
    },
    projects: [
      project('unit', {
        include: ['test/!(native|package|browser|engines|lab|lab-kernels)/**/*.test.ts'],
        exclude: long,
        limit: minute,
      }),
      project('long', { include: long, limit: 3 * minute }),
      project('native', {
        include: ['test/native/**/*.test.ts'],
        limit: 2 * minute,
        alias: { 'node:test': fileURLToPath(new URL('test/native/on-vitest.ts', import.meta.url)) },
      }),
      project('package', { include: ['test/package/**/*.test.ts'], limit: 10 * minute }),
      project('browser', { include: ['test/browser/**/*.test.ts'], limit: 2 * minute }),
      project('engines', { include: ['test/engines/**/*.test.ts'], limit: 3 * minute }),
      project('lab', {
        include: ['test/lab/**/*.test.ts', 'test/lab-kernels/**/*.test.ts'],
        limit: 20 * minute,
        order: 1,
      }),
    ],
  },
})
