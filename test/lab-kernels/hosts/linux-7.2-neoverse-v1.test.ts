import { holdAgainstKernel } from '../hold-against-kernel.js'

holdAgainstKernel('linux-7.2-neoverse-v1')
