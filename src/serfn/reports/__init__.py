"""Statistics, tables, plots and HTML pages of runs and studies."""
