"""BlackVIP: visual prompts for a black box, by queries alone."""
