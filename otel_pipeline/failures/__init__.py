"""What kind of failure it was: classes, rules as data, chains of exceptions, fingerprints. No clock, no socket."""
