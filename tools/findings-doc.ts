import { findingCodes, type FindingCode, type Severity } from '../lib/migration/finding.js'
import { generalWords, severityWords } from '../lib/migration/words.js'

const severityTexts: Readonly<Record<Severity, string>> = {
  refused: 'the destination refuses the value, or the VM',
  'missing-at-destination': 'the destination has no such register',
  'service-lost': 'a hypercall service the guest may have discovered is gone',
  'guest-broken': 'the restore succeeds, and the guest cannot go on as it was; no error reports it',
  'reads-differently': 'the destination accepts the value and then shows the guest another',
  'silent-default': 'the guest sees the destination’s own value, and no error reports it',
  notice: 'different, without consequence for the guest',
}

const head = `# Findings

\`kvm-arm64 check\` and \`kvm-arm64 fleet\` report what stops a VM, or changes on its way, as findings. A finding has a stable \`code\`, a
\`severity\`, \`stops\` (whether the move fails because of it), the register and field, the value on both sides and, where there is one, the
write that would have prevented it (\`pin\`). Values are \`0x…\` strings; \`null\` means that there is no such register, \`counts\` that it counts
time. The published schemas are \`kvm-arm64/verdict.schema.json\` and \`kvm-arm64/fleet.schema.json\`. Match on \`code\`: the sentences that the
commands print are made from the finding and may change.

This page is generated from the code: \`npm run schema\` writes it.

## Severities

Gravest first.
`

/** \`docs/findings.md\`: every code with its meaning and remedy. */
export function findingsDocument(): string {
  const severities = Object.entries(severityTexts).map(([severity, text]) => `- \`${severity}\`: ${text}`)
  const codes = findingCodes.map(({ code, severity }) => codeText(code, severity))
  return [head, ...severities, '', '## Codes', '', codes.join('\n\n'), ''].join('\n')
}

function codeText(code: FindingCode, severity: Severity | 'outcome'): string {
  const { meaning, remedy } = generalWords(code)
  const how = severity === 'outcome' ? 'as the destination answers' : severityWords(severity)
  return [`### \`${code}\``, '', `Severity: ${how}.`, '', meaning, '', `Remedy: ${remedy}`].join('\n')
}
