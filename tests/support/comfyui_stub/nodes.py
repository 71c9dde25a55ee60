"""Only here to be found beside main.py, as there."""
