"""Sources and sinks: Zarr, OME-Zarr, xarray and annotated images."""
