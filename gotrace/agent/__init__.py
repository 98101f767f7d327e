"""The agent that stays: what it serves and sends. Imports nothing by itself."""
