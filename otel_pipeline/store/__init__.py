"""What must sum and must survive: tables in SQLite, or in PostgreSQL for a fleet. Knows no spans and batches."""
