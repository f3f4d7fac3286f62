"""Pure geometry: sizes, regions and the mirror. Knows neither torch nor dask nor files."""
