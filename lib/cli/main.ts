#!/usr/bin/env node
import { Command } from 'commander'
import { labCommand } from './lab.js'

await new Command('kvm-arm64').enablePositionalOptions().addCommand(labCommand()).parseAsync()
