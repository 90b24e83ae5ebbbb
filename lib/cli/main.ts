#!/usr/bin/env node
import { Command } from 'commander'
import { decodeCommand } from './decode.js'
import { labCommand } from './lab.js'

await new Command('kvm-arm64')
  .enablePositionalOptions()
  .addCommand(decodeCommand())
  .addCommand(labCommand())
  .parseAsync()
