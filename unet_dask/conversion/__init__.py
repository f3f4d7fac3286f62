"""An image of any format as an OME-Zarr of its own: the same values, checked, with a pyramid."""
