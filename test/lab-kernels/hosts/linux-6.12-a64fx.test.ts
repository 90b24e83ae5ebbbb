import { holdAgainstKernel } from '../hold-against-kernel.js'

holdAgainstKernel('linux-6.12-a64fx')
