/** As much of an XML reader as tells whether a document without comments and CDATA is well formed. */
export interface Element {
  name: string
  attributes: Record<string, string>
  children: Element[]
  text: string
}

const entities: Readonly<Record<string, string>> = { amp: '&', lt: '<', gt: '>', quot: '"', apos: "'" }
const token = /<\?xml [^?]*\?>|<\/([\w.-]+)>|<([\w.-]+)((?:\s+[\w.-]+="[^"<]*")*)\s*(\/?)>|[^<]+/uy

/** @throws Error where it is not */
export function parseXml(xml: string): Element {
  if (/[^\t\n\r\u{20}-\u{d7ff}\u{e000}-\u{fffd}\u{10000}-\u{10ffff}]/u.test(xml)) {
    throw new Error('a character that XML cannot hold')
  }
  const top: Element = { name: '', attributes: {}, children: [], text: '' }
  const open = [top]
  token.lastIndex = 0
  while (token.lastIndex < xml.length) {
    const at = token.lastIndex
    const match = token.exec(xml)
    if (match === null) throw new Error(`not well formed: ${xml.slice(at, at + 80)}`)
    const [whole, end, start, attributes = '', empty] = match
    const inner = open.at(-1)!
    if (end !== undefined) {
      if (open.pop()!.name !== end) throw new Error(`</${end}> closes ${inner.name}`)
    } else if (start !== undefined) {
      const element: Element = {
        name: start,
        attributes: parseAttributes(attributes),
        children: [],
        text: '',
      }
      inner.children.push(element)
      if (empty === '') open.push(element)
    } else if (!whole.startsWith('<?xml ')) inner.text += decode(whole)
    else if (at !== 0) throw new Error('a declaration that is not at the beginning')
  }
  const [root, ...others] = top.children
  if (open.length !== 1 || root === undefined || others.length > 0 || top.text.trim() !== '') {
    throw new Error('not one element')
  }
  return root
}

function parseAttributes(text: string): Record<string, string> {
  const attributes: Record<string, string> = {}
  for (const [, name = '', value = ''] of text.matchAll(/([\w.-]+)="([^"]*)"/g)) {
    if (name in attributes) throw new Error(`${name} twice`)
    attributes[name] = decode(value)
  }
  return attributes
}

function decode(text: string): string {
  if (text.includes(']]>')) throw new Error(']]> in text')
  return text.replaceAll(/&(\w*);?/g, (reference, name: string) => {
    if (!reference.endsWith(';') || !(name in entities)) throw new Error(`${reference} is no entity`)
    return entities[name]!
  })
}
