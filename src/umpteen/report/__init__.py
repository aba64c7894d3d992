"""How things look: text, tables, JSON and the live view."""
