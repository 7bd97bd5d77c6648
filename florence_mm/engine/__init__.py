"""Runner, loops, hooks, samplers and optimizer constructors."""
