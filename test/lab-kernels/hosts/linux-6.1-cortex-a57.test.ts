import { holdAgainstKernel } from '../hold-against-kernel.js'

holdAgainstKernel('linux-6.1-cortex-a57')
