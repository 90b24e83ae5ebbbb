/** A real browser without a window, driven by the Chrome DevTools Protocol over a pipe. */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Readable, Writable } from 'node:stream'
import { ensurePrograms } from '../debian.js'

interface Message {
  id?: number
  method?: string
  params?: unknown
  result?: unknown
  error?: { message: string }
}

/** A tab with a page in it. */
export class Page {
  /** What the page's scripts threw, and what its policy or the browser complained of. */
  readonly complaints: string[] = []
  readonly #browser: ChildProcess
  readonly #folder: string
  readonly #waiting = new Map<number, (answer: Pick<Message, 'result' | 'error'>) => void>()
  #session: string | undefined
  #last = 0

  private constructor(browser: ChildProcess, folder: string) {
    this.#browser = browser
    this.#folder = folder
    let text = ''
    const output = browser.stdio[4] as Readable
    output.setEncoding('utf8').on('data', (chunk: string) => {
      const parts = (text + chunk).split('\0')
      text = parts.pop()!
      for (const part of parts) this.#receive(JSON.parse(part) as Message)
    })
    browser.once('exit', () => {
      for (const answer of this.#waiting.values()) answer({ error: { message: 'Chromium has ended' } })
    })
  }

  /** Leads to another address, and waits for the page to be ready. */
  async go(url: string): Promise<void> {
    // An address that differs only in its end would not load the page again.
    await this.#send('Page.navigate', { url: 'about:blank' })
    await this.#send('Page.navigate', { url })
    await this.until(`location.href !== 'about:blank' && document.documentElement?.dataset.ready === 'yes'`)
  }

  static async start(): Promise<Page> {
    await ensurePrograms(['chromium'])
    const folder = mkdtempSync(join(tmpdir(), 'kvm-arm64-chromium-'))
    const browser = spawn(
      'chromium',
      [
        '--headless',
        '--no-sandbox',
        '--disable-gpu',
        '--disable-dev-shm-usage',
        '--window-size=1400,1000',
        '--remote-debugging-pipe',
        `--user-data-dir=${folder}`,
      ],
      { stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'] },
    )
    const page = new Page(browser, folder)
    const { targetId } = await page.#send<{ targetId: string }>('Target.createTarget', { url: 'about:blank' })
    const { sessionId } = await page.#send<{ sessionId: string }>('Target.attachToTarget', {
      targetId,
      flatten: true,
    })
    page.#session = sessionId
    for (const domain of ['Runtime', 'Log', 'Page']) await page.#send(`${domain}.enable`)
    return page
  }

  /** The value of an expression in the page. */
  async ask<T>(expression: string): Promise<T> {
    const { result, exceptionDetails } = await this.#send<{
      result: { value: T }
      exceptionDetails?: { text: string }
    }>('Runtime.evaluate', { expression, returnByValue: true, awaitPromise: true })
    if (exceptionDetails !== undefined) throw new Error(`${expression}: ${exceptionDetails.text}`)
    return result.value
  }

  async until(expression: string): Promise<void> {
    for (let attempt = 0; attempt < 600; attempt++) {
      if (await this.ask<boolean>(expression)) return
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
    throw new Error(`it never came to ${expression}`)
  }

  /** Presses and releases the mouse where an element is. */
  async click(selector: string): Promise<void> {
    const [x, y] = await this.ask<[number, number]>(`(() => {
      const element = document.querySelector(${JSON.stringify(selector)})
      element.scrollIntoView({ block: 'center', inline: 'center' })
      const { left, top, width, height } = element.getBoundingClientRect()
      return [left + width / 2, top + height / 2]
    })()`)
    for (const type of ['mousePressed', 'mouseReleased']) {
      await this.#send('Input.dispatchMouseEvent', { type, x, y, button: 'left', clickCount: 1 })
    }
  }

  /** Presses and releases a key that writes nothing: `ArrowDown`, `Escape`, `Tab`. */
  async press(key: string): Promise<void> {
    const codes: Readonly<Record<string, number>> = {
      Tab: 9,
      Enter: 13,
      Escape: 27,
      End: 35,
      Home: 36,
      ArrowLeft: 37,
      ArrowUp: 38,
      ArrowRight: 39,
      ArrowDown: 40,
    }
    const event = { key, code: key, windowsVirtualKeyCode: codes[key]! }
    for (const type of ['rawKeyDown', 'keyUp']) await this.#send('Input.dispatchKeyEvent', { type, ...event })
  }

  /** Types text into what has the focus. */
  async type(text: string): Promise<void> {
    await this.#send('Input.insertText', { text })
  }

  /** Changes the size of the window, and what the system prefers. */
  async resize(width: number, height: number, scheme: 'light' | 'dark' = 'light', media = ''): Promise<void> {
    const metrics = { width, height, deviceScaleFactor: 1, mobile: width < 500 }
    await this.#send('Emulation.setDeviceMetricsOverride', metrics)
    await this.#send('Emulation.setEmulatedMedia', {
      media,
      features: [{ name: 'prefers-color-scheme', value: scheme }],
    })
  }

  /** Runs a script as the page's policy allows no page to: from outside. */
  async inject(source: string): Promise<void> {
    await this.#send('Runtime.evaluate', { expression: source })
  }

  /** Returns a picture of the page, PNG, or of its visible part. */
  async picture({ whole = false } = {}): Promise<Buffer> {
    const options = { format: 'png', captureBeyondViewport: whole }
    const { data } = await this.#send<{ data: string }>('Page.captureScreenshot', options)
    return Buffer.from(data, 'base64')
  }

  /** Returns the page as it is printed, PDF. */
  async print(): Promise<Buffer> {
    const { data } = await this.#send<{ data: string }>('Page.printToPDF', { printBackground: true })
    return Buffer.from(data, 'base64')
  }

  async close(): Promise<void> {
    const ended = new Promise((resolve) => this.#browser.once('exit', resolve))
    this.#session = undefined
    await this.#send('Browser.close')
    await ended
    rmSync(this.#folder, { recursive: true, force: true, maxRetries: 5 })
  }

  #send<T>(method: string, params: object = {}): Promise<T> {
    const id = ++this.#last
    const message = { id, method, params, ...(this.#session !== undefined && { sessionId: this.#session }) }
    return new Promise<T>((resolve, reject) => {
      this.#waiting.set(id, ({ result, error }) => {
        if (error === undefined) resolve(result as T)
        else reject(new Error(`${method}: ${error.message}`))
      })
      ;(this.#browser.stdio[3] as Writable).write(`${JSON.stringify(message)}\0`)
    })
  }

  #receive(message: Message): void {
    if (message.id !== undefined) {
      this.#waiting.get(message.id)?.(message)
      this.#waiting.delete(message.id)
    } else if (message.method === 'Runtime.exceptionThrown' || message.method === 'Log.entryAdded') {
      this.complaints.push(JSON.stringify(message.params))
    }
  }
}
