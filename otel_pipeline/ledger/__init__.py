"""Money that adds up: what things cost (price book) and whose cost it is (allocation). No clock, no store, no log.

One span's money, top to bottom: `price_book.py` finds the row, `charge.py` turns quantities into an amount, or
`tape.py` turns the row into what a GPU was paid over time, and `allocation.py` splits that among the spans that used
it.
"""
