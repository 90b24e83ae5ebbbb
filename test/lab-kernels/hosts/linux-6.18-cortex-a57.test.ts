import { holdAgainstKernel } from '../hold-against-kernel.js'

holdAgainstKernel('linux-6.18-cortex-a57')
