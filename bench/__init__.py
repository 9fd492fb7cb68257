"""How fast the core is: `python -m bench` measures it on generated organisations and prints a table.

    shape ─► organisation ─► core ─► child processes, one per case ─► report
                             startup ───────────────────────────────┘

Nothing of the program imports this package. What the figures mean stands in `docs/performance.md`.
"""
