/** Elements from text: what a report says never becomes HTML. */

type Child = Node | string | undefined | false

interface Attributes {
  class?: string
  id?: string
  href?: string
  title?: string
  [name: `aria-${string}` | `data-${string}`]: string
  role?: string
  scope?: string
  type?: string
  for?: string
  value?: string
  placeholder?: string
  tabindex?: string
}

export function make<Tag extends keyof HTMLElementTagNameMap>(
  tag: Tag,
  attributes: Attributes = {},
  ...children: Child[]
): HTMLElementTagNameMap[Tag] {
  const element = document.createElement(tag)
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value as string)
  for (const child of children) if (child !== undefined && child !== false) element.append(child)
  return element
}

/** `1,234 hosts` */
export function count(amount: number, one: string, many = `${one}s`): string {
  return `${number(amount)} ${amount === 1 ? one : many}`
}

export function number(amount: number): string {
  return amount.toLocaleString('en')
}

/** `57 %`; rounds to 0 only what is 0, and to 100 only what is 1. */
export function percent(share: number): string {
  const rounded = Math.round(share * 100)
  if (rounded === 0 && share > 0) return '< 1 %'
  if (rounded === 100 && share < 1) return '> 99 %'
  return `${rounded} %`
}

/** A horizontal bar: the number beside it says the same. */
export function bar(share: number, kind: string): HTMLElement {
  const fill = make('span', { class: `fill ${kind}` })
  fill.style.inlineSize = `${Math.max(share * 100, share > 0 ? 0.75 : 0)}%`
  return make('span', { class: 'bar', 'aria-hidden': 'true' }, fill)
}
