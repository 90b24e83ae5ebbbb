/** Makes text from outside (files, arguments, other programs) safe to print on a terminal. */

/**
 * Characters that a terminal interprets or hides, as the inside of a character class: control characters, bidirectional and
 * zero-width ones, separators of lines and paragraphs, half of a surrogate pair, tags. Written out, since JSON Schema has no
 * Unicode properties.
 */
export const HIDDEN = [
  String.raw`\u0000-\u001f\u007f-\u009f`,
  String.raw`\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f`,
  String.raw`\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb`,
].join('')

// With the flag u a surrogate matches itself only if it is unpaired.
const hidden = new RegExp(String.raw`[${HIDDEN}\ud800-\udfff\u{e0000}-\u{e0fff}]`, 'gu')
const hiddenButNewline = new RegExp(String.raw`(?!\n)${hidden.source}`, 'gu')

/** Shows control, bidirectional and zero-width characters as `\n`, `\x1b`, `\u202e` or `\u{e0001}`, and keeps all others. */
export function printable(text: string): string {
  return text.replace(hidden, escapeOf)
}

/** Like `printable`, for text of several lines: keeps newlines. */
export function printableLines(text: string): string {
  return text.replace(hiddenButNewline, escapeOf)
}

/** Returns JSON text with the same value, in which these characters are escaped; keeps newlines between its tokens. */
export function printableJson(json: string): string {
  return json.replace(hiddenButNewline, (character) =>
    Array.from(
      { length: character.length },
      (_, index) => `\\u${character.charCodeAt(index).toString(16).padStart(4, '0')}`,
    ).join(''),
  )
}

const short: Readonly<Record<string, string>> = { '\n': '\\n', '\r': '\\r', '\t': '\\t' }

function escapeOf(character: string): string {
  const code = character.codePointAt(0)!
  const digits = code.toString(16)
  if (code > 0xffff) return `\\u{${digits}}`
  return (
    short[character] ?? (code < 0x100 ? `\\x${digits.padStart(2, '0')}` : `\\u${digits.padStart(4, '0')}`)
  )
}
