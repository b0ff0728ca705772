"""Options of ``fit`` chosen on validation: what may vary, the search, and what it found."""
