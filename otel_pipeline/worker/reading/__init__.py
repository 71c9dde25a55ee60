"""Foreign documents, read within bounds: what a message holds, paths into it, configuration files."""
