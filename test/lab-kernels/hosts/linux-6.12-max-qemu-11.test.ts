import { holdAgainstKernel } from '../hold-against-kernel.js'

holdAgainstKernel('linux-6.12-max-qemu-11')
