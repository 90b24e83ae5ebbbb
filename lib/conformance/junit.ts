import type { CheckResult } from './check.js'

/**
 * Formats results as JUnit XML: one `testsuite`, a `testcase` for each check with its group as `classname` and its `time` in
 * seconds. A broken promise is a failure. Every other check that does not pass is skipped, with its verdict in the message: one
 * that does not apply, one that all releases so far passed without a promise, and one in which the kernel deviates from its
 * document. The verdict is also a property.
 *
 * @param host the host that ran them, for readers
 */
export function junitXml(results: readonly CheckResult[], host: string): string {
  const cases = results.map(testCase)
  const counts = [
    ['tests', cases.length],
    ['failures', cases.filter(({ kind }) => kind === 'failure').length],
    ['errors', 0],
    ['skipped', cases.filter(({ kind }) => kind === 'skipped').length],
  ] as const
  const seconds = results.reduce((sum, result) => sum + result.seconds, 0)
  const totals = [...counts.map(([name, count]) => ` ${name}="${count}"`), timeOf(seconds)].join('')
  return [
    '<?xml version="1.0" encoding="UTF-8"?>',
    `<testsuites name="kvm-arm64 conformance"${totals}>`,
    `  <testsuite name="${escape(host)}"${totals}>`,
    ...cases.map(({ xml }) => xml),
    '  </testsuite>',
    '</testsuites>',
    '',
  ].join('\n')
}

function testCase(result: CheckResult): { kind: 'failure' | 'skipped' | 'success'; xml: string } {
  const { group, name, mark, verdict, did } = result
  const kind = kindOf(result)
  const background = [
    `${verdict} (${mark})`,
    `promise: ${result.promise}`,
    `source: ${result.source}`,
    `kernel: ${did}`,
  ].join('\n')
  const inside =
    kind === 'failure'
      ? [
          properties(result),
          `<failure type="${mark}" message="${escape(did)}">${escape(background)}</failure>`,
        ]
      : [
          properties(result),
          ...(kind === 'skipped' ? [`<skipped message="${escape(`${verdict}: ${did}`)}"/>`] : []),
          `<system-out>${escape(background)}</system-out>`,
        ]
  return {
    kind,
    xml: [
      `    <testcase classname="${escape(group)}" name="${escape(name)}"${timeOf(result.seconds)}>`,
      ...inside.map((element) => `      ${element}`),
      '    </testcase>',
    ].join('\n'),
  }
}

function kindOf({ verdict, mark }: CheckResult): 'failure' | 'skipped' | 'success' {
  if (verdict === 'fails') return mark === 'promised' ? 'failure' : 'skipped'
  return verdict === 'passes' ? 'success' : 'skipped'
}

function timeOf(seconds: number): string {
  return ` time="${seconds.toFixed(6)}"`
}

function properties({ verdict, mark }: CheckResult): string {
  return `<properties><property name="verdict" value="${verdict}"/><property name="mark" value="${mark}"/></properties>`
}

const entities: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
}

/** Escapes a text for content and attributes. Characters that XML or UTF-8 cannot hold become U+FFFD. */
function escape(text: string): string {
  return text
    .replaceAll(/[^\t\n\r\u{20}-\u{d7ff}\u{e000}-\u{fffd}\u{10000}-\u{10ffff}]/gu, '\ufffd')
    .replaceAll(/[&<>"]/g, (character) => entities[character]!)
}
