/**
 * Runs `work`. On a signal, aborts it, waits until it has ended, and then ends this process with the same signal.
 * @param interrupted called after `work`, before this process ends
 */
export async function interruptible<T>(
  work: (signal: AbortSignal) => Promise<T>,
  interrupted?: () => void,
): Promise<T> {
  const abort = new AbortController()
  let interruption: NodeJS.Signals | undefined
  const interrupt = (name: NodeJS.Signals) => {
    interruption ??= name
    abort.abort()
  }
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const
  for (const name of signals) process.on(name, interrupt)
  const restore = () => {
    for (const name of signals) process.removeListener(name, interrupt)
  }
  try {
    return await work(abort.signal)
  } finally {
    restore()
    if (interruption) {
      interrupted?.()
      process.kill(process.pid, interruption)
      // The signal arrives a moment later; nothing else may happen until then.
      await new Promise(() => {})
    }
  }
}
