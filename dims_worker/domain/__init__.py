"""Pure rules without a database, a clock, or a network: plan, decide, schedule."""
