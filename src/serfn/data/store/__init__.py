"""Experience on disk that survives crashes: journal, episode files, labels, recovery."""
