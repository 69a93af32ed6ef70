"""What people look at: image grids, plots, tables, progress lines."""
