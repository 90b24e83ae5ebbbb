import { holdAgainstKernel } from '../hold-against-kernel.js'

holdAgainstKernel('linux-5.10-neoverse-n1')
