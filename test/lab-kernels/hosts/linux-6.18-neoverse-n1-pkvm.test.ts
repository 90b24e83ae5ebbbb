import { holdAgainstKernel } from '../hold-against-kernel.js'

holdAgainstKernel('linux-6.18-neoverse-n1-pkvm')
