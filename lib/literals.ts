/**
 * Text that is only known at run time: a `string`, or a template with one in it, but no literal. A function that looks names up takes
 * `Known | RuntimeText<Given>`: an editor completes the known names, the compiler refuses a misspelt literal, and what a program
 * reads from its arguments is looked up when it runs.
 */
export type RuntimeText<Given extends string> = Given &
  (Nothing extends Record<Given, unknown> ? unknown : never)

/** Assignable to a record whose keys are not known one by one, and to no other. */
type Nothing = { [key in never]: unknown }
