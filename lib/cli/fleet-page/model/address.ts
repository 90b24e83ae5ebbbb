/** The state of the view in the page's address, so that a link leads to what one sees. */

export interface ViewState {
  vmm: string
  /** Show the moves of VMs made by the baseline. */
  elected: boolean
  /** Digests of the classes of the chosen move. */
  from?: string
  to?: string
  query: string
  severity: string
  cause: string
  /** One row for all classes that move alike; undefined leaves it to the number of classes. */
  grouped?: boolean
  theme: '' | 'light' | 'dark'
}

export function initialState(vmm: string): ViewState {
  return { vmm, elected: false, query: '', severity: '', cause: '', theme: '' }
}

/** Reads a state from the part of an address from `#` on; what is missing or unknown has its default. */
export function stateOf(hash: string, vmms: readonly string[]): ViewState {
  const parts = new URLSearchParams(hash.replace(/^#/, ''))
  const part = (name: string) => parts.get(name) ?? ''
  const state = initialState(vmms.find((vmm) => vmm === part('vmm')) ?? vmms[0]!)
  state.elected = part('view') === 'baseline'
  if (parts.has('from') && parts.has('to')) Object.assign(state, { from: part('from'), to: part('to') })
  state.query = part('q')
  state.severity = part('severity')
  state.cause = part('cause')
  const theme = part('theme')
  if (theme === 'light' || theme === 'dark') state.theme = theme
  if (parts.has('grouped')) state.grouped = part('grouped') === 'yes'
  return state
}

/** Returns the address of a state, without what it has by default. */
export function addressOf(state: ViewState, vmms: readonly string[]): string {
  const parts = new URLSearchParams()
  const put = (name: string, value: string | undefined) => {
    if (value !== undefined && value !== '') parts.set(name, value)
  }
  put('from', state.from)
  put('to', state.to)
  if (state.vmm !== vmms[0]) put('vmm', state.vmm)
  if (state.elected) put('view', 'baseline')
  put('q', state.query)
  put('severity', state.severity)
  put('cause', state.cause)
  if (state.grouped !== undefined) put('grouped', state.grouped ? 'yes' : 'no')
  put('theme', state.theme)
  return `#${parts.toString()}`
}
