"""From YAML in the Collector's shape to typed, validated settings. `loader.py` first."""
