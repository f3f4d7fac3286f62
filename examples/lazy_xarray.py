"""Segment an `xarray.DataArray` lazily: dimensions and coordinates are kept, and only what is asked for is computed."""

from __future__ import annotations

import dask.array as da
import numpy as np
import xarray as xr

import unet_dask
from unet_dask.demo.synthetic import nuclei


def make_image(side: int = 1024) -> xr.DataArray:
    """Return an image of nuclei with coordinates in micrometres."""
    image, _ = nuclei((side, side), seed=3)
    micrometres = np.arange(side) * 0.325
    return xr.DataArray(
        da.from_array(image, chunks=(512, 512)),
        dims=("y", "x"),
        coords={"y": micrometres, "x": micrometres},
        name="hoechst",
    )


def main() -> None:
    """Segment an image, compute a part of it."""
    image = make_image()
    # Statistics of the image as constants: the same for every chunk, so there are no seams.
    mean, std = float(image.mean()), float(image.std())
    model = unet_dask.load_model("nuclei").with_statistics(mean=[mean], std=[std])

    classes = unet_dask.segment(image, model)  # nothing is computed yet
    print(classes)

    corner = classes.sel(y=slice(0, 100), x=slice(0, 100)).compute()  # micrometres
    print(f"{float((corner == 1).mean()):.1%} of the first 100 x 100 um are nucleus")

    probabilities = unet_dask.segment(image, model, output="probabilities")
    certain = (probabilities.isel(c=1, y=slice(0, 256), x=slice(0, 256)) > 0.9).mean()
    print(f"{float(certain.compute()):.1%} of a part are nucleus with a probability above 0.9")


if __name__ == "__main__":
    main()
