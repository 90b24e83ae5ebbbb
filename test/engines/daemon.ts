/** Daemons of Debian that a test starts as this user and ends again. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createConnection, createServer } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'

/** Milliseconds within which a daemon must be ready. */
const PATIENCE = 20_000

export class Daemons {
  readonly #running: { child: ChildProcess; name: string; log: () => string }[] = []

  /** Starts a program in the foreground. */
  start(
    name: string,
    program: string,
    args: readonly string[],
    env: NodeJS.ProcessEnv = process.env,
  ): ChildProcess {
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'], env })
    let log = ''
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (text: string) => (log = (log + text).slice(-4_000)))
    }
    child.on('error', (error) => (log += error.message))
    this.#running.push({ child, name, log: () => log })
    return child
  }

  /**
   * Waits until `isReady`.
   * @throws Error with what the daemons wrote, if one of them ends or it takes too long
   */
  async until(what: string, isReady: () => boolean | Promise<boolean>): Promise<void> {
    const deadline = Date.now() + PATIENCE
    while (!(await isReady())) {
      const ended = this.#running.find(({ child }) => child.exitCode !== null)
      if (ended === undefined && Date.now() < deadline) await delay(20)
      else {
        const logs = this.#running.map(({ name, log }) => `${name}: ${log()}`).join('\n')
        throw new Error(`${what}: ${ended ? `${ended.name} ended` : 'not ready'}\n${logs}`)
      }
    }
  }

  async stop(): Promise<void> {
    await Promise.all(this.#running.map(({ child }) => end(child)))
    this.#running.length = 0
  }
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return
  const ended = once(child, 'exit')
  child.kill('SIGTERM')
  const late = setTimeout(() => child.kill('SIGKILL'), 5_000)
  await ended
  clearTimeout(late)
}

/** Returns whether something accepts connections. */
export async function accepts(port: number, host = '127.0.0.1'): Promise<boolean> {
  const socket = createConnection({ port, host })
  try {
    await once(socket, 'connect')
    return true
  } catch {
    return false
  } finally {
    socket.destroy()
  }
}

/** Returns a TCP port on which nothing listens at the moment. */
export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as { port: number }
  server.close()
  await once(server, 'close')
  return port
}
