"""File formats of demonstrations and recorded experience, one module each."""
